# SPDX-License-Identifier: GPL-2.0-only
#
# People's entry. The kernel's own build starts at Kbuild.

# The kernel to build for: a directory, or the version of an installed one.
ifdef KDIR
KERNELRELEASE := $(shell cat $(KDIR)/include/config/kernel.release 2>/dev/null)
else
KERNELRELEASE ?= $(shell uname -r)
KDIR := /lib/modules/$(KERNELRELEASE)/build
endif
DESTDIR ?=
PREFIX ?= /usr
LIBDIR ?= $(PREFIX)/lib

VM := tools/testing/vm
BENCH := tools/testing/bench

# Kernels to test on (see $(VM)/kernels), and tests: all of them if not given.
K ?=
T ?=
BASE ?=
SAMPLE ?=

help:
	@echo 'bus1 - a capability-based message bus'
	@echo ''
	@echo 'See it work, on no kernel but one in a virtual machine:'
	@echo '  make demo           watch bus1 do its job; SAMPLE=broker: another of samples/bus1'
	@echo '  make check          build for, and test on, all supported kernels'
	@echo '  make check T=peer   one test program, or one case (T=peer.open), on one kernel;'
	@echo '                      K=6.1 names the kernel, K="6.1 6.12" several'
	@echo '  make check T=stress BUS1_STRESS_SCALE=100'
	@echo '                      a million messages, and so on (default: 5 percent of that)'
	@echo '  make check-kunit    the unit tests alone, on the debug kernel'
	@echo '  make check-mutants  see that the tests catch a protocol that is broken on purpose'
	@echo '  make check-static   only what needs no machine: warnings, sparse, style'
	@echo '  make check-debug    on a kernel that checks memory, locks, objects, arithmetic'
	@echo '  make check-leaks    the same, and lost memory; slow'
	@echo '  make check-race     on a kernel that looks for data races'
	@echo '  make check-msan     on a kernel that looks for what was not initialized'
	@echo '  make check-rt       on a PREEMPT_RT kernel (these five: with T=..., too)'
	@echo '  make check-valgrind the library, run by valgrind'
	@echo '  make check-seeded   see that KMSAN finds bugs put there on purpose'
	@echo '  make check-matrix   on each kernel that README.md shows, or those in K; takes hours'
	@echo '  make check-litmus   barriers against the memory model of the kernel'
	@echo '  make fuzz           look for what breaks it (K, FUZZ_SECONDS, FUZZ_PROCS);'
	@echo '                      make fuzz-replay: run programs that did again'
	@echo '  make coverage       which lines of the module the tests reach'
	@echo '  make check-model    search all states of a model of the ordering protocol'
	@echo '  make check-deb      the Debian packages: built twice the same, and lintian'
	@echo '  make check-install  install them on a whole Debian system, update kernels,'
	@echo '                      remove them; with Secure Boot, too; takes half an hour'
	@echo '  make check-intree   put bus1 into a kernel, as module and built in, and boot it'
	@echo '  make bench          what a message costs, over bus1, sockets, pipes, binder (K, T);'
	@echo '                      BASE=REV compares with the module of another revision'
	@echo '  make bench-profile  which functions the instructions are in (T=oneway-64);'
	@echo '                      make bench-shared: which memory two CPUs both write'
	@echo '  make vm             a shell in a virtual machine (K=6.1 names the kernel)'
	@echo ''
	@echo 'Use it, on this machine:'
	@echo '  make modules        build bus1.ko for the running kernel'
	@echo '  make libbus1        build the library, static and shared, into build/libbus1'
	@echo '  make tool           build the command bus1, into build/tool'
	@echo '  make install-tool   install it, its manual and its completion (as root);'
	@echo '                      make uninstall-tool: remove it again'
	@echo '  make deb            build the Debian packages, into build/'
	@echo '  make dkms-install   let DKMS build and install the module, for each kernel (as'
	@echo '                      root); make dkms-remove: remove it again'
	@echo '  make install        install the module, its header, its manual and the library (as'
	@echo '                      root); make install-libbus1: the library alone'
	@echo '  make uninstall      remove them again'
	@echo '  KERNELRELEASE=...   for another installed kernel, or'
	@echo '  KDIR=...            for the kernel built in this directory'
	@echo ''
	@echo '  make docs           the documentation: manual pages and HTML, in build/docs'
	@echo ''
	@echo '  make clean          remove what was built; make distclean: downloads, too'

all: modules

modules:
	@test -e $(KDIR)/Makefile || { \
		echo 'error: no kernel headers in $(KDIR)'; \
		echo 'On Debian: apt install linux-headers-$(KERNELRELEASE)'; \
		exit 1; }
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

demo:
	@SAMPLE="$(SAMPLE)" $(VM)/demo.sh $(K)

check:
	@$(VM)/check.sh "$(K)" $(T)

# Sanitizers, built out of Debian's source when first asked for.
check-debug:
	@$(VM)/check.sh -l debug $(T)

check-leaks:
	@$(VM)/check.sh -l leaks $(T)

check-race:
	@$(VM)/check.sh -l race $(T)

check-msan:
	@$(VM)/check.sh -l msan $(T)

check-rt:
	@$(VM)/check.sh -l 6.12-rt $(T)

check-matrix:
	@$(VM)/matrix.sh $(K)

check-seeded:
	@$(VM)/seeded.sh $(T)

check-kunit:
	@$(VM)/check.sh "$(or $(K),debug)" $(or $(T),kunit)

check-mutants:
	@$(VM)/mutants.sh "$(K)" $(T)

# What the library does with memory, and with descriptors.
check-valgrind:
	@BUS1_ABIS=valgrind BUS1_SLOW=4 $(VM)/check.sh "$(or $(K),6.12)" $(or $(T),libbus1)

check-model:
	@tools/verification/bus1/check.sh $(if $(FULL),full)

check-static:
	@$(VM)/static.sh $(K)

check-litmus:
	@tools/verification/bus1/litmus/run.sh $(T)

fuzz:
	@$(VM)/fuzz.sh run $(K)

fuzz-replay:
	@$(VM)/fuzz.sh replay $(K)

fuzz-distill:
	@$(VM)/fuzz.sh distill $(K)

coverage:
	@$(VM)/coverage.sh $(K)

check-deb:
	@tools/testing/install/deb-check.sh

check-install:
	@tools/testing/install/run.sh $(T)

# What the newcomer has seen in the last run becomes part of the tutorial.
transcript:
	@tools/testing/install/run.sh docs

check-intree:
	@$(VM)/intree.sh $(T)

# BASE is the revision to compare with. More: tools/testing/bench/run.sh.
bench:
	@BASE="$(BASE)" $(BENCH)/run.sh bench "$(K)" $(T)

bench-profile:
	@$(BENCH)/run.sh profile "$(K)" $(T)

bench-shared:
	@$(BENCH)/run.sh shared "$(K)" $(T)

# The last results of "make bench" become those of Documentation/bus1/performance.rst.
bench-docs:
	@$(BENCH)/run.sh docs

vm:
	@$(VM)/shell.sh $(K)

docs:
	@$(VM)/docs.sh

library := $(MAKE) -C tools/lib/bus1 OUTPUT=$(CURDIR)/build/libbus1 PREFIX=$(PREFIX) \
	LIBDIR=$(LIBDIR)

tool:
	$(MAKE) -C tools/bus1 OUTPUT=$(CURDIR)/build/tool

install-tool: tool
	install -D -m 755 build/tool/bus1 $(DESTDIR)$(PREFIX)/bin/bus1
	install -D -m 644 tools/bus1/completion/bus1 \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/bus1
	@if command -v rst2man >/dev/null; then \
		install -d $(DESTDIR)$(PREFIX)/share/man/man1 && \
		rst2man Documentation/bus1/bus1.1.rst \
			$(DESTDIR)$(PREFIX)/share/man/man1/bus1.1; \
	else \
		echo 'no rst2man (python3-docutils): the manual is not installed'; \
	fi

uninstall-tool:
	$(RM) $(DESTDIR)$(PREFIX)/bin/bus1 \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/bus1 \
		$(DESTDIR)$(PREFIX)/share/man/man1/bus1.1


libbus1:
	$(library)

install-libbus1:
	$(library) install
	$(if $(DESTDIR),,ldconfig)

# Manual pages, and where one of them is installed.
man_pages := $(patsubst %.rst,%,$(wildcard Documentation/bus1/*.[1-9].rst)) \
	Documentation/bus1/libbus1.3
man_dir = $(DESTDIR)$(PREFIX)/share/man/man$(patsubst .%,%,$(suffix $(1)))

man: $(man_pages)

$(man_pages):
	@$(MAKE) -s -C Documentation/bus1 $(@F)

install: modules install-libbus1
	$(MAKE) -C $(KDIR) M=$(CURDIR) \
		$(if $(DESTDIR),INSTALL_MOD_PATH=$(DESTDIR)) modules_install
	$(if $(DESTDIR),,depmod $(KERNELRELEASE))
	install -D -m 644 include/uapi/linux/bus1.h \
		$(DESTDIR)$(PREFIX)/include/linux/bus1.h
	@if command -v rst2man >/dev/null; then \
		dir=$$(mktemp -d) && $(MAKE) -s -C Documentation/bus1 man OUTPUT=$$dir || exit; \
		for page in $(filter-out bus1.1,$(notdir $(man_pages))); do \
			install -D -m 644 $$dir/$$page \
				$(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$$page || exit; \
		done; \
		rm -r $$dir; \
	else \
		echo 'no rst2man (python3-docutils): the manual is not installed'; \
	fi

uninstall:
	find $(DESTDIR)/lib/modules/$(KERNELRELEASE)/ -name 'bus1.ko*' -delete
	$(if $(DESTDIR),,depmod $(KERNELRELEASE))
	$(RM) $(DESTDIR)$(PREFIX)/include/linux/bus1.h
	$(RM) $(foreach page,$(man_pages),$(call man_dir,$(page))/$(notdir $(page)))
	$(library) uninstall

# DKMS takes the version from dkms.conf, and a copy of what is named here.
dkms_version := $(shell sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' dkms.conf)
dkms_source := /usr/src/bus1-$(dkms_version)

dkms-install:
	@command -v dkms >/dev/null || { \
		echo 'error: no dkms; on Debian: apt install dkms'; exit 1; }
	@command -v openssl >/dev/null || \
		echo 'warning: no openssl: DKMS will not sign the module'
	@if [ -n "$$(dkms status -m bus1)" ]; then \
		echo 'error: DKMS has a bus1: make dkms-remove, or apt remove bus1-dkms'; \
		exit 1; \
	fi
	rm -rf $(dkms_source)
	install -d $(dkms_source)
	cp -R dkms.conf Kbuild ipc include $(dkms_source)/
	find $(dkms_source) -type f ! -name '*.[ch]' ! -name 'K*' ! -name dkms.conf -delete
	chown -R root:root $(dkms_source)
	chmod -R u=rwX,go=rX $(dkms_source)
	dkms add -m bus1 -v $(dkms_version)
	for build in /lib/modules/*/build; do \
		[ -e $$build/Makefile ] || continue; \
		kernel=$${build%/build}; \
		dkms install -m bus1 -v $(dkms_version) -k $${kernel##*/} || \
			[ $$? = 77 ] || exit 1; \
	done

dkms-remove:
	dkms remove -m bus1 -v $(dkms_version) --all
	rm -rf $(dkms_source)

deb:
	@$(VM)/deb.sh

clean:
	find ipc Module.symvers modules.order .*.cmd .*.o -type f \( -name '*.o' \
		-o -name '*.ko' -o -name '*.mod' -o -name '*.mod.c' -o -name '.*.cmd' \
		-o -name modules.order -o -name Module.symvers \) -delete 2>/dev/null || :
	$(RM) $(man_pages)
	$(RM) -r build
	$(MAKE) -s -C tools/lib/bus1 clean
	@$(VM)/clean.sh

distclean: clean
	@$(VM)/clean.sh all

.DEFAULT_GOAL := help
.PHONY: help all modules demo check check-debug check-leaks check-race \
	check-msan check-rt check-matrix check-seeded check-valgrind check-kunit check-mutants check-model check-static check-litmus \
	fuzz fuzz-replay fuzz-distill coverage check-deb check-install transcript check-intree \
	bench bench-profile bench-shared bench-docs vm docs man libbus1 install install-libbus1 uninstall dkms-install dkms-remove \
	deb clean distclean tool install-tool uninstall-tool
