"""Checks for causes of latency on this machine, each with the command that fixes it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from dorad.realtime.facts import SERVICE, Facts, spell_cores
from dorad.realtime.refusal import UNLIMITED

Level = Literal["PASS", "WARN", "FAIL"]

GOOD_CLOCKS = frozenset(
    {"tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource_tsc_page", "riscv_clocksource"}
)
"""Clock sources that are read without a system call."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armmp"}
_USUAL_US = 950_000


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check of `dora doctor`."""

    level: Level
    name: str
    text: str
    hint: str | None = None
    """What to do; for real time, the command that fixes it."""


def governor(facts: Facts) -> Check:
    """Check that cores run at full speed after a sleep."""
    name = "CPU frequency"
    slow = {core: kind for core, kind in facts.governors.items() if kind != "performance"}
    if not facts.governors:
        return Check("PASS", name, "the kernel does not change it")
    if not slow:
        return Check("PASS", name, "governor performance on all cores")
    kinds = ", ".join(sorted(set(slow.values())))
    return Check(
        "WARN",
        name,
        f"governor {kinds} on cores {spell_cores(slow)}: a core is slow after it was idle",
        "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    )


def huge_pages(facts: Facts) -> Check:
    """Check that the kernel does not compact memory in use."""
    name = "transparent huge pages"
    if facts.huge_pages == "always":
        return Check(
            "WARN",
            name,
            "always: the kernel pauses processes to compact their memory",
            "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        )
    return Check("PASS", name, facts.huge_pages or "the kernel has none")


def throttling(facts: Facts) -> Check:
    """Check the share of a core that the kernel gives to real time."""
    name = "share of real time"
    runtime, period = facts.rt_runtime_us, facts.rt_period_us or 1_000_000
    fix = f"sudo sysctl -w kernel.sched_rt_runtime_us={_USUAL_US * period // 1_000_000}"
    if runtime is None:
        return Check("PASS", name, "the kernel sets no limit")
    if runtime < 0:
        text = "no limit: a real-time node that never waits blocks its core"
        return Check("WARN", name, text, fix)
    text = f"{runtime / 1e3:g} of every {period / 1e3:g} ms (sched_rt_runtime_us)"
    if runtime == 0:
        return Check("FAIL", name, f"{text}: nothing may run in real time", fix)
    if runtime < period // 2:
        return Check("WARN", name, f"{text}: real-time nodes are paused beyond that", fix)
    return Check("PASS", name, text)


def isolation(facts: Facts) -> Check:
    """Check for cores that are reserved."""
    name = "isolated cores"
    if facts.isolated:
        cores = spell_cores(facts.isolated)
        return Check("PASS", name, f"{cores}; put nodes there with `cpu_affinity`")
    if len(facts.online) < 4:
        return Check("PASS", name, f"none; {len(facts.online)} cores are too few to reserve one")
    last = max(facts.online)
    words = f"isolcpus=domain,managed_irq,{last} nohz_full={last} rcu_nocbs={last}"
    return Check(
        "WARN",
        name,
        "none: other processes may run on the core of a real-time node",
        f"""sudo sed -i 's/^GRUB_CMDLINE_LINUX="/&{words} /' /etc/default/grub"""
        " && sudo update-grub && sudo reboot",
    )


def preemption(facts: Facts) -> Check:
    """Check how long the kernel itself may delay an urgent process."""
    name = "kernel preemption"
    kind = facts.preemption
    if kind == "rt":
        return Check("PASS", name, "PREEMPT_RT")
    package = f"linux-image-rt-{_ARCHITECTURES.get(facts.machine, facts.machine)}"
    fix = f"sudo apt install {package} && sudo reboot"
    if kind is None:
        return Check("WARN", name, "unknown", fix)
    mode = "chosen at boot (PREEMPT_DYNAMIC)" if kind == "dynamic" else kind
    return Check("WARN", name, f"{mode}: drivers may delay urgent nodes for milliseconds", fix)


def interrupts(facts: Facts) -> Check:
    """Check for interrupts on isolated cores."""
    name = "interrupts"
    if not facts.isolated:
        return Check("PASS", name, f"{len(facts.interrupts)}, and no core is isolated from them")
    stray = sorted(
        (number for number, cores in facts.interrupts.items() if cores & facts.isolated), key=int
    )
    if not stray:
        return Check("PASS", name, "none on an isolated core")
    rest = spell_cores(facts.online - facts.isolated)
    numbers = " ".join(stray)
    return Check(
        "WARN",
        name,
        f"{', '.join(stray)} may interrupt isolated cores ({spell_cores(facts.isolated)})",
        f"for irq in {numbers}; do echo {rest} | sudo tee /proc/irq/$irq/smp_affinity_list; done",
    )


def locked_memory(facts: Facts) -> Check:
    """Check that nodes may lock their memory."""
    name = "locked memory"
    if facts.may_lock:
        return Check("PASS", name, "CAP_IPC_LOCK")
    if facts.locked_limit == UNLIMITED:
        return Check("PASS", name, "no limit")
    if facts.locked_limit is None:
        return Check("WARN", name, "limit unknown")
    text = f"at most {facts.locked_limit >> 10} KiB per process: `lock_memory` is refused"
    if facts.is_service:
        kib = facts.locked_limit >> 10
        text = f"systemd grants it to nodes, but only {kib} KiB to dorad itself"
    return Check("WARN", name, text, _raise(facts, "LimitMEMLOCK=infinity", "memlock unlimited"))


def priority(facts: Facts) -> Check:
    """Check that nodes may run in real time."""
    name = "real-time priority"
    if facts.may_prioritise:
        return Check("PASS", name, "CAP_SYS_NICE")
    if facts.priority_limit is None:
        return Check("WARN", name, "limit unknown")
    if facts.priority_limit >= 99:
        return Check("PASS", name, "up to 99; policy `deadline` needs CAP_SYS_NICE")
    fix = _raise(facts, "LimitRTPRIO=99", "rtprio 99")
    if facts.is_service:
        limit = facts.priority_limit
        if limit:
            return Check("PASS", name, f"systemd grants it to nodes; up to {limit} to dorad itself")
        return Check("WARN", name, "systemd grants it to nodes, but not to dorad itself", fix)
    if facts.priority_limit == 0:
        return Check("FAIL", name, "none: nodes run without their `realtime`", fix)
    return Check("WARN", name, f"up to {facts.priority_limit}", fix)


def swap(facts: Facts) -> Check:
    """Check that memory cannot be swapped out."""
    if facts.swaps:
        text = f"{', '.join(facts.swaps)}: memory that is not locked may be swapped out"
        return Check("WARN", "swap", text, "sudo swapoff -a")
    return Check("PASS", "swap", "none")


def clock(facts: Facts) -> Check:
    """Check that reading the time is fast."""
    name = "clock source"
    if facts.clock is None or facts.clock in GOOD_CLOCKS:
        return Check("PASS", name, facts.clock or "unknown")
    better = next((each for each in facts.clocks if each in GOOD_CLOCKS), None)
    where = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
    fix = (
        f"echo {better} | sudo tee {where}"
        if better is not None
        else "sudo dmesg | grep -i clocksource  # shows why the kernel rejects a faster one"
    )
    return Check("WARN", name, f"{facts.clock}: each read takes microseconds", fix)


def hyperthreads(facts: Facts) -> Check:
    """Check that cores do not share execution units."""
    name = "SMT"
    if facts.smt:
        return Check(
            "WARN",
            name,
            "on: a process on the sibling of a node's core slows the node down",
            "echo off | sudo tee /sys/devices/system/cpu/smt/control",
        )
    return Check("PASS", name, "off")


CHECKS: tuple[Callable[[Facts], Check], ...] = (
    priority,
    locked_memory,
    preemption,
    governor,
    isolation,
    interrupts,
    throttling,
    huge_pages,
    swap,
    clock,
    hyperthreads,
)


def run_checks(facts: Facts) -> list[Check]:
    """Return the results of all checks."""
    return [check(facts) for check in CHECKS]


def _raise(facts: Facts, unit: str, line: str) -> str:
    """Return the command that raises a limit of the process that starts nodes."""
    if not facts.is_service:
        file = f"/etc/security/limits.d/dorad-{line.split()[0]}.conf"
        return f'echo "$USER - {line}" | sudo tee {file}  # then log in again, and restart dorad'
    file = f"/etc/systemd/system/{SERVICE}.d/{line.split()[0]}.conf"
    return (
        rf"printf '[Service]\n{unit}\n' | sudo install -D -m 644 /dev/stdin {file}"
        f" && sudo systemctl daemon-reload && sudo systemctl restart {SERVICE}"
    )
