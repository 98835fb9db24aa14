#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Make tables and plots of what the benchmark has printed.

Usage: report.py DIRECTORY KERNEL
       report.py --docs PAGE NAME FILE...

DIRECTORY has icount-1.output, icount-2.output (if any) and time.output (if any).
Written there: results.csv, summary.csv, table.rst of instructions, times.rst, and for gnuplot
*.gp and *.dat. The tables are printed, too. With --docs, files take their place in PAGE, between two lines
".. NAME begin" and ".. NAME end".
"""

import csv
import glob
import os
import re
import statistics
import sys
import textwrap

TRANSPORTS = ["bus1", "seqpacket", "stream", "pipe", "mqueue", "binder"]
SIZES = {"64": 64, "1k": 1 << 10, "4k": 4 << 10, "64k": 64 << 10, "1m": 1 << 20}
FURTHER = "multicast-further"

# The most that it may take, in instructions.
BARS = {
    "oneway-64": 3100,
    "oneway-64-fewer": 2600,
    "oneway-4k-fewer": 3300,
    "oneway-64k-fewer": 11500,
    "oneway-1m-fewer": 150000,
    "rtt-64-fewer": 9000,
    FURTHER: 1100,
    "file": 5000,
    "open": 12000,
}


class Results:
    """By row, and by transport and label."""

    def __init__(self):
        self.rows = []
        self.values = {}
        self.lines = []
        self.errors = []
        self.none = {}

    def read(self, path, how):
        with open(path, encoding="ascii", errors="replace") as f:
            for line in f:
                fields = line.rstrip("\n").split("\t")
                if len(fields) < 4 or fields[0] not in ("R", "E", "-"):
                    continue
                kind, row, transport, label = fields[:4]
                if row not in self.rows:
                    self.rows.append(row)
                key = (row, label or transport)
                if kind == "E":
                    self.errors.append(f"{how}: {row} {transport} {label}: {fields[4]}")
                elif kind == "-":
                    self.none[key] = fields[4]
                elif float(fields[5]) <= 0:
                    self.errors.append(f"{how}: {row} {transport} {label}: it is {fields[5]}")
                else:
                    self.values.setdefault(key, []).append([float(v) for v in fields[5:9]])
                    self.lines.append([how, row, transport, label] + fields[4:])

    def median(self, row, who):
        v = self.values.get((row, who))
        return statistics.median(x[0] for x in v) if v else None

    def lowest(self, row, who):
        v = self.values.get((row, who))
        return min(x[2] for x in v) if v else None

    def spread(self, row, who):
        v = [x[0] for x in self.values[row, who]]
        return min(v), max(v)

    def derive(self):
        """What each receiver of a multicast costs that is not the only one."""
        for who in TRANSPORTS + ["base"]:
            one, many = (self.values.get((f"multicast-{n}", who)) for n in (1, 256))
            if one and many:
                self.values[FURTHER, who] = [[(256 * b[0] - a[0]) / 255] * 4
                                             for a, b in zip(one, many)]
        if any((FURTHER, who) in self.values for who in TRANSPORTS):
            at = max(i for i, r in enumerate(self.rows) if r.startswith("multicast-"))
            self.rows.insert(at + 1, FURTHER)


def number(v):
    if v is None:
        return ""
    return f"{v:.0f}"


def verdict(row, value):
    if row not in BARS or value is None:
        return ""
    if value <= BARS[row]:
        return "met"
    return f"missed: {value / BARS[row]:.2f} x"


def table(results, title, value):
    """Return the head and the lines of a table. Value is a method of Results."""
    used = [t for t in TRANSPORTS if any((r, t) in results.values for r in results.rows)]
    base = any(who == "base" for _, who in results.values)
    head = ["row", "bus1"]
    if base:
        head += ["base", "bus1/base"]
    if "seqpacket" in used:
        head += ["seqpacket", "bus1/seqp."]
    rest = [t for t in used if t not in ("bus1", "seqpacket")]
    head += rest
    bars = title == "icount"
    if bars:
        head += ["bar", ""]
    lines = []
    for row in results.rows:
        bus1 = value(results, row, "bus1")
        floor = value(results, row, "")
        line = [row, number(bus1 if floor is None else floor)]
        if base:
            v = value(results, row, "base")
            line += [number(v), f"{bus1 / v:.3f}" if v and bus1 else ""]
        if "seqpacket" in used:
            v = value(results, row, "seqpacket")
            line += [number(v), f"{bus1 / v:.2f}" if v and bus1 else ""]
        line += [number(value(results, row, t)) for t in rest]
        if bars:
            line += [number(BARS.get(row)), verdict(row, bus1)]
        if any(line[1:]):
            lines.append(line)
    return head, lines


def plain(head, lines):
    widths = [max(len(x[i]) for x in [head] + lines) for i in range(len(head))]
    out = []
    for line in [head] + lines:
        cells = [line[0].ljust(widths[0])] + [c.rjust(w) for c, w in
                                              zip(line[1:], widths[1:])]
        out.append("  ".join(cells).rstrip())
    return out


def rst(head, lines):
    # A simple table takes no empty first cells, and wants something in the last.
    head = [h or "\\" for h in head]
    lines = [[c or "\\" for c in line] for line in lines]
    widths = [max(len(x[i]) for x in [head] + lines) for i in range(len(head))]
    rule = " ".join("=" * w for w in widths)

    def format_line(line):
        return " ".join([line[0].ljust(widths[0])] + [
            c.rjust(w) for c, w in zip(line[1:], widths[1:])]).rstrip()

    return [rule, format_line(head), rule] + [format_line(x) for x in lines] + [rule]


def spreads(results):
    """What is needed to judge times: median, and the lowest and highest round."""
    lines = []
    for row in results.rows:
        line = [row]
        for who in [""] + TRANSPORTS + ["base"]:
            if (row, who) in results.values:
                low, high = results.spread(row, who)
                middle = results.median(row, who)
                line.append(f"{who or 'itself'} -{100 * (1 - low / middle):.0f}%"
                            f"+{100 * (high / middle - 1):.0f}%")
        if len(line) > 1:
            lines.append("  ".join(line))
    return lines


def repeats(directory):
    """Return how many numbers there are, of how many runs, and which do not repeat."""
    runs = []
    for path in sorted(glob.glob(os.path.join(directory, "icount-*.output"))):
        r = Results()
        r.read(path, "icount")
        runs.append(r)
    n, worse = 0, []
    if len(runs) < 2:
        return None
    for key in runs[0].values:
        v = [r.median(*key) for r in runs]
        if None in v:
            continue
        n += 1
        difference = (max(v) - min(v)) / max(min(v), 1)
        if difference > 0.005:
            worse.append(f"{' '.join(key).strip()} {100 * difference:.1f}%")
    return n, len(runs), worse


def scaling(results):
    """How much more gets done by more pairs, of the fastest."""
    lines = []
    for who in TRANSPORTS + ["base"]:
        one = results.lowest("pairs-1", who)
        for n in (2, 4):
            more = results.lowest(f"pairs-{n}", who)
            if one and more:
                lines.append((who, n, one / more))
    return lines


STYLE = """set terminal svg size 720,430 font "sans-serif,13" background rgb "white"
set output "{name}.svg"
set grid lw 0.5
set key {key}
set xlabel "{x}"
set ylabel "{y}"
set style data linespoints
set linetype 5 lc rgb "#cc79a7"
"""


def plot(directory, name, series, x, y, key, extra):
    """Series: name, and pairs of x and y."""
    series = [(s, [p for p in points if p[1] is not None]) for s, points in series]
    series = [(s, points) for s, points in series if len(points) > 1]
    if not series:
        return
    with open(os.path.join(directory, f"{name}.dat"), "w", encoding="ascii") as f:
        for s, points in series:
            f.write(f"# {s}\n")
            for p in points:
                f.write(f"{p[0]} {p[1]:.1f}\n")
            f.write("\n\n")
    with open(os.path.join(directory, f"{name}.gp"), "w", encoding="ascii") as f:
        f.write(STYLE.format(name=name, x=x, y=y, key=key))
        f.write(extra)
        f.write("plot " + ", ".join(
            f'"{name}.dat" index {i} title "{s}" lw {3 if s.startswith("bus1") else 1.5}'
            f" pt {i + 4} ps 0.7" for i, (s, _) in enumerate(series)) + "\n")


def plots(directory, r):
    plot(directory, "size",
         [(t, [(n, r.median(f"oneway-{s}", t)) for s, n in SIZES.items()])
          for t in TRANSPORTS] +
         [("copy alone", [(n, r.median(f"floor-copy-{s}", "")) for s, n in SIZES.items()])],
         "bytes", "instructions per message", "left top",
         'set logscale xy\nset format y "%.0s%c"\nset xrange [48:1500000]\nset xtics ("64" 64, "1K" 1024, "4K" 4096, "64K" 65536,'
         ' "1M" 1048576)\n')
    plot(directory, "multicast",
         [(t, [(n, r.median(f"multicast-{n}", t)) for n in (1, 4, 16, 64, 256)])
          for t in TRANSPORTS],
         "receivers", "instructions per receiver, of the sender", "right top",
         "set logscale x\nset xrange [0.9:300]\nset xtics (1, 4, 16, 64, 256)\nset yrange [0:]\n")
    plot(directory, "growth",
         [("bus1, handles of the sender",
           [(n, r.median(f"table-{n}", "bus1")) for n in (10, 1000, 60000)]),
          ("bus1, messages in the queue",
           [(n, r.median(f"depth-{n}", "bus1")) for n in (1, 1000, 16000)]),
          ("seqpacket, messages in the queue",
           [(n, r.median(f"depth-{n}", "seqpacket")) for n in (1, 1000, 16000)])],
         "handles, messages", "instructions per message of 64 bytes", "right bottom",
         "set logscale x\nset xrange [0.9:100000]\nset yrange [0:]\n")


def report(directory, kernel):
    os.chdir(directory)
    print_lines, doc, times = [], [], []
    counted, timed = Results(), Results()
    for path in sorted(glob.glob("icount-*.output")):
        counted.read(path, path.removesuffix(".output"))
    if os.path.exists("time.output"):
        timed.read("time.output", "time")

    with open("results.csv", "w", encoding="ascii", newline="") as f:
        f.write(f"# SPDX-License-Identifier: GPL-2.0-only\n# kernel {kernel}\n")
        w = csv.writer(f, lineterminator="\n")
        w.writerow(["how", "row", "transport", "label", "unit", "median", "mean", "p10",
                    "p90", "samples"])
        w.writerows(counted.lines + timed.lines)

    with open("summary.csv", "w", encoding="ascii", newline="") as f:
        f.write(f"# SPDX-License-Identifier: GPL-2.0-only\n# kernel {kernel}\n")
        w = csv.writer(f, lineterminator="\n")
        w.writerow(["row", "transport", "instructions", "instructions_mean", "ns_fastest",
                    "ns_median"])
        for key in list(counted.values) + [k for k in timed.values if k not in counted.values]:
            v = counted.values.get(key)
            w.writerow([*key, number(counted.median(*key)),
                        number(statistics.mean(x[1] for x in v)) if v else "",
                        number(timed.lowest(*key)), number(timed.median(*key))])

    counted.derive()
    if counted.values:
        t = table(counted, "icount", Results.median)
        print_lines += [f"Instructions per operation, kernel {kernel}", ""] + plain(*t)
        doc += [f"Instructions per operation, kernel {kernel}:", ""] + rst(*t) + [""]
        judged = [(row, verdict(row, counted.median(row, "bus1"))) for row in BARS]
        met = [row for row, v in judged if v == "met"]
        missed = [f"{row} ({v.removeprefix('missed: ')})" for row, v in judged
                  if v.startswith("missed")]
        if met or missed:
            doc += [f"Bars that are met: {', '.join(met) or 'none'}. "
                    f"Missed: {', '.join(missed) or 'none'}.", ""]
        again = repeats(".")
        if again:
            n, runs, worse = again
            text = (f"Of {n} numbers, {n - len(worse)} are the same to 0.5% in {runs} runs."
                    + (f" The others differ by: {', '.join(worse)}." if worse else ""))
            print_lines += ["", text]
            doc += [text, ""]
        plots(".", counted)
    if timed.values:
        print_lines += ["", f"Nanoseconds per operation, emulated, kernel {kernel}: medians", ""]
        print_lines += plain(*table(timed, "time", Results.median))
        print_lines += ["", "Lowest and highest round against the median:", ""]
        print_lines += spreads(timed)
        fastest = table(timed, "time", Results.lowest)
        print_lines += ["", "The fastest batch of all rounds:", ""] + plain(*fastest)
        rounds = max(len(v) for v in timed.values.values())
        times += [f"Nanoseconds per operation, emulated, kernel {kernel}, the fastest batch of "
                  f"{rounds} rounds:", ""] + rst(*fastest) + [""]
        off = [timed.spread(*key)[1] / timed.median(*key) for key in timed.values]
        times += [f"The highest round was {statistics.median(off):.1f} times the median, in half of "
                  "these numbers or more. Near 1 the machine was quiet, and only then medians "
                  "(which ``make bench`` prints, too) say something.", ""]
        scale = scaling(timed)
        if scale:
            text = ["Pairs on two CPUs, work done against that of one pair: " + ", ".join(
                f"{who} {n} pairs {x:.2f}" for who, n, x in scale) + "."]
            print_lines += [""] + text
            times += text + [""]
    for key, why in sorted(counted.none.items()):
        print_lines.append(f"not measured: {key[0]} {key[1]}: {why}")
    print("\n".join(print_lines))
    for name, lines in ("table.rst", doc), ("times.rst", times):
        if lines:
            with open(name, "w", encoding="ascii") as f:
                # Tables stay as they are.
                f.write("\n".join("\n".join(textwrap.wrap(x, 98))
                                  if ". " in x or x.endswith((".", ":")) else x
                                  for x in lines))
    errors = counted.errors + timed.errors
    if errors or not (counted.values or timed.values):
        sys.exit("\n".join(errors) or "nothing was measured")


def docs(page, *parts):
    """Pairs of a name and a file, that goes where the page has the name."""
    with open(page, encoding="utf-8") as f:
        text = f.read()
    for name, path in zip(parts[::2], parts[1::2]):
        with open(path, encoding="ascii") as f:
            new = f.read().strip()
        text, n = re.subn(rf"(?s)(\.\. {name} begin\n).*?(\.\. {name} end\n)",
                          lambda m, new=new: f"{m[1]}\n{new}\n\n{m[2]}", text)
        if n != 1:
            sys.exit(f"{page}: there is no place for '{name}'")
    with open(page, "w", encoding="utf-8") as f:
        f.write(text)


if __name__ == "__main__":
    if len(sys.argv) > 4 and sys.argv[1] == "--docs":
        docs(*sys.argv[2:])
    elif len(sys.argv) == 3:
        report(*sys.argv[1:])
    else:
        sys.exit(__doc__)
