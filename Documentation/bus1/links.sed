# SPDX-License-Identifier: GPL-2.0-only
# Names of manual pages become links: our own to their pages, and, where one is named
# in running text, files of the documentation, too.
s#<strong>(ioctl_bus1_[a-z_]+|bus1|libbus1)</strong>\(([1-9])\)#<a href="\1.\2.html"><strong>\1</strong>(\2)</a>#g
s#<strong>([a-z0-9_]+)</strong>\(([1-9])\)#<a href="https://man7.org/linux/man-pages/man\2/\1.\2.html"><strong>\1</strong>(\2)</a>#g
s#(^|[ (>])bus1\(7\)([ ,.;:)<]|$)#\1<a href="bus1.7.html">bus1(7)</a>\2#g
s#(^|[ (>])bus1\(1\)([ ,.;:)<]|$)#\1<a href="bus1.1.html">bus1(1)</a>\2#g
s#<span class="docutils literal">Documentation/bus1/([a-z0-9.]+)\.rst</span>#<a href="\1.html">&</a>#g
s#href="([a-z0-9_.]+)\.rst"#href="\1.html"#g
