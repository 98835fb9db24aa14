#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Print where instructions go, by function.

Usage: profile.py --profile SYMBOLS COUNTS RESULT MODULE
       profile.py --shared SYMBOLS COUNTS RESULT MODULE
       profile.py --tables COUNTS...

SYMBOLS is like /proc/kallsyms, COUNTS is what profile.c has written, RESULT is the
line of the benchmark that belongs to it. What is printed is instructions per
operation: all that was executed between the marks, by whatever task. The same is written to COUNTS.functions, of which
--tables makes tables for the documentation. With --shared, COUNTS is what shared.c has written:
print the cache lines that were written on both CPUs, and the functions that did it.

Of the kernel it is the function that was called, whatever the compiler has put into it. Of
the module, MODULE being its file with what debuggers need, it is the one in the source.
"""

import bisect
import collections
import re
import subprocess
import sys

# What functions are for: the first that matches. Those of the module by the room of
# it that they are in.
GROUPS = [
    ("bus1: commands, their arguments", r"bus1_(ioctl|fop|array|layout)"),
    ("bus1: send", r"bus1_send"),
    ("bus1: receive", r"bus1_recv"),
    ("bus1: budgets", r"bus1_(quota|fair|user)"),
    ("bus1: queue, order", r"bus1_(queue|tx|clock)"),
    ("bus1: pool", r"bus1_pool"),
    ("bus1: handles, nodes", r"bus1_(handle|node|destroy)"),
    ("bus1: messages", r"bus1_(message|cargo)"),
    ("bus1: peers", r"bus1_"),
    ("user space", r"\(user"),
    ("entry and exit of system calls", r"entry_SYSCALL|entry_SYSRETQ|.*syscall_|x64_sys_call|"
     r"exit_to_user|amd_clear_divider|fpregs_assert|.*do_syscall|syscall|"
     r"__rseq_|rseq_"),
    ("descriptors, ioctl", r"__x64_sys_ioctl|do_vfs_ioctl|__fget|__fdget|fput|fget|ksys_(read|write)|"
     r"__x64_sys_|vfs_(read|write)|sock_(write|read)_iter|new_sync|__sys_|sockfd_lookup|rw_verify"),
    ("security modules", r"security_|tomoyo_|apparmor_|aa_|bpf_lsm|selinux_|smack_|landlock"),
    ("copies", r".*copy_user|.*copy_(from|to)_|copy_page_|iov_iter|_copy_|__check_object|check_stack|"
     r"is_vmalloc|__virt_addr|simple_copy|skb_copy|__skb_datagram|clear_page"),
    ("memory", r"kmem_cache|kmalloc|__kmalloc|kfree|kvfree|slab_|___slab|__slab|memcg_|cache_from|"
     r"__memcg|obj_cgroup|alloc_pages|__alloc|get_page|free_|__free|alloc_skb|mod_objcg|"
     r"refill_obj|get_obj|kmalloc_|unfreeze"),
    ("locks, RCU", r"_raw_spin|mutex_|__mutex|__rcu_|rcu_|__cond_resched|osq_|down_|up_|"
     r"__local_bh|preempt_"),
    ("lookup, trees, lists", r"xa_|xas_|rb_|__rb_|__list_"),
    ("clock", r"ktime_get|read_tsc|timekeeping"),
    ("waking, waiting, switching", r".*wake|.*sched|.*enqueue|.*dequeue|.*load_avg|.*switch|psi_|"
     r"update_|pick_|put_prev|set_next|check_preempt|select_|.*entity|.*_fair|record_times|"
     r"finish_task|prepare_to_wait|finish_wait|place_|reweight|ttwu|perf_event|native_load|"
     r"rb_|cpu|__calc|resched_|autoremove|hrtick|timerqueue|entity_|__update|x2apic|"
     r"clear_buddies|avg_|task_|.*rq_|sched"),
    ("pipes, sockets, queues", r"pipe_|unix_|sock_|skb_|__skb|sk_|scm_|mqueue|do_mq|msg_|"
     r"wqueue|consume_skb|__scm|__sock|put_(pid|cred)"),
]


def read_symbols(path):
    """Return start addresses, and the name and module of each."""
    best = {}
    with open(path, encoding="ascii") as f:
        for line in f:
            fields = line.split()
            if len(fields) < 3:
                continue
            address, name = int(fields[0], 16), fields[2]
            module = fields[3].strip("[]") if len(fields) > 3 else "kernel"
            # Of several names of one address: that of a function as it is called.
            rank = (name.startswith("__pfx_"), name.startswith("_"), len(name), name)
            if address not in best or rank < best[address][0]:
                best[address] = (rank, name, module)
    starts = sorted(best)
    return starts, [best[a][1:] for a in starts]


def group_of(name):
    return next((g for g, pattern in GROUPS if re.match(pattern, name)), "others")


def read_module(path):
    """Return section and offset of each function in an object file."""
    out = subprocess.run(["readelf", "-SsW", path], capture_output=True, text=True,
                         check=True).stdout
    sections = dict(re.findall(r"^ *\[ *(\d+)\] (\.text\S*)", out, re.M))
    return {name: (sections[section], int(value, 16))
            for value, section, name in
            re.findall(r"^ *\d+: (\S+) +\S+ FUNC +\S+ +\S+ +(\d+) (\S+)", out, re.M)
            if section in sections}


def sources(module, places):
    """Ask for the function of the module that is the source of each section and offset."""
    by_section, found = collections.defaultdict(list), {}
    for section, offset in places:
        by_section[section].append(offset)
    for section, offsets in by_section.items():
        out = subprocess.run(["addr2line", "-afi", "-j", section, "-e", module],
                             input="".join(f"{o:x}\n" for o in offsets),
                             capture_output=True, text=True, check=True).stdout
        # For each address: itself, and from the inside out a name and a line.
        for part in re.split(r"^0x", out, flags=re.M)[1:]:
            lines = part.split("\n")
            name = next((n for n in lines[1::2] if n.startswith("bus1_")), None)
            if name:
                found[section, int(lines[0], 16)] = name
    return found


def shared(symbols, counts, result):
    starts, names = read_symbols(symbols)
    _, row, transport = result.split("\t")[:3]
    often, rare = [], 0
    with open(counts, encoding="ascii") as f:
        ops = [int(n) for n in f.readline().split()[1:3]]
        for line in f:
            address, a, b, *writers = line.split()
            if 2 * int(a) < ops[0] or 2 * int(b) < ops[1]:
                rare += 1
                continue
            by = []
            for w in writers:
                i = bisect.bisect_right(starts, int(w, 16)) - 1
                if i >= 0 and names[i][0] not in by:
                    by.append(names[i][0])
            often.append((address, int(a), int(b), by))
    print(f"{row} {transport}: two CPUs at once, {ops[0]} and {ops[1]} operations")
    print(f"  {len(often)} cache lines are written on both in half of the operations or more,"
          f" {rare} in fewer:")
    for address, a, b, by in sorted(often, key=lambda x: -x[1]):
        print(f"  {address}  {100 * a / ops[0]:4.0f}% {100 * b / ops[1]:4.0f}%  {' '.join(by)}")
    print()


def profile(symbols, counts, result, module_path):
    starts, names = read_symbols(symbols)
    _, row, transport, label, _, measured, _, _, _, _ = result.split("\t")
    per_function, total = {}, 0
    functions, places = read_module(module_path), {}
    with open(counts, encoding="ascii") as f:
        ops = int(f.readline().split()[1])
        parts = int(f.readline().split()[1])
        for line in f:
            address, n = line.split()
            address, n = int(address, 16), int(n)
            total += n
            if address < 1 << 63:
                key = ("(user space)", "user")
            else:
                i = bisect.bisect_right(starts, address) - 1
                key = names[i] if i >= 0 else ("(unknown)", "kernel")
                if key[1] == "bus1" and key[0] in functions:
                    section, offset = functions[key[0]]
                    places[section, offset + address - starts[i]] = (key, n)
                    continue
            per_function[key] = per_function.get(key, 0) + n
    if not total or not ops:
        sys.exit(f"{counts}: nothing was counted")
    found = sources(module_path, places)
    for place, (key, n) in places.items():
        key = (found.get(place, key[0]), key[1])
        per_function[key] = per_function.get(key, 0) + n

    unit = ops * parts
    with open(f"{counts}.functions", "w", encoding="ascii") as f:
        f.write(f"{row}\n")
        for (name, module), n in per_function.items():
            f.write(f"{name}\t{module}\t{n / unit}\n")
    modules = {}
    for (_, module), n in per_function.items():
        modules[module] = modules.get(module, 0) + n
    print(f"{row} {transport} {label}".rstrip())
    print(f"  {total / unit:.1f} instructions per operation were counted, the time stamp"
          f" counter says {float(measured):.1f} ({ops} operations)")
    for module, n in sorted(modules.items(), key=lambda item: -item[1]):
        print(f"  {n / unit:10.1f} {100 * n / total:5.1f}%  in {module}")
    print()
    groups = {}
    for (name, _), n in per_function.items():
        group = group_of(name)
        groups[group] = groups.get(group, 0) + n
    for group, n in sorted(groups.items(), key=lambda item: -item[1]):
        print(f"  {n / unit:10.1f} {100 * n / total:5.1f}%  {group}")
    print()
    rest = 0
    for (name, module), n in sorted(per_function.items(), key=lambda item: -item[1]):
        if n / total < 0.0005:
            rest += n
            continue
        where = "" if module in ("kernel", "user") else f" [{module}]"
        print(f"  {n / unit:10.1f} {100 * n / total:5.1f}%  {name}{where}")
    print(f"  {rest / unit:10.1f} {100 * rest / total:5.1f}%  (all others)")
    print()


def rst(head, lines):
    widths = [max(len(x[i]) for x in [head] + lines) for i in range(len(head))]
    rule = " ".join("=" * w for w in widths)
    text = [" ".join([x[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(x[1:], widths[1:])])
            for x in [head] + lines]
    return [rule, text[0], rule] + text[1:] + [rule]


def tables(paths):
    rows, groups, functions = [], {}, {}
    for i, path in enumerate(paths):
        with open(f"{path}.functions", encoding="ascii") as f:
            rows.append(f.readline().strip())
            for line in f:
                name, module, n = line.rstrip("\n").split("\t")
                for key, to in ((group_of(name), groups), ((name, module), functions)):
                    to.setdefault(key, [0.0] * len(paths))[i] += float(n)
    totals = [sum(g[i] for g in groups.values()) for i in range(len(rows))]
    lines = [[g] + [f"{v:.0f}" for v in n]
             for g, n in sorted(groups.items(), key=lambda item: -item[1][0])]
    lines.append(["sum"] + [f"{v:.0f}" for v in totals])
    print("\n".join(rst(["instructions for"] + rows, lines)))
    print("\nFunctions with at least 1.5% of any of these:\n")
    lines = [[f"``{name}``" + ("" if module in ("kernel", "user") else f" [{module}]")] +
             [f"{v:.0f}" for v in n]
             for (name, module), n in sorted(functions.items(), key=lambda item: -item[1][0])
             if any(v >= 0.015 * t for v, t in zip(n, totals)) and module != "user"]
    print("\n".join(rst(["function"] + rows, lines)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--tables"]:
        tables(sys.argv[2:])
    elif sys.argv[1:2] == ["--shared"] and len(sys.argv) == 6:
        shared(*sys.argv[2:5])
    elif sys.argv[1:2] == ["--profile"] and len(sys.argv) == 6:
        profile(*sys.argv[2:])
    else:
        sys.exit(__doc__)
