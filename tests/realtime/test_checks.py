"""The checks of `dora doctor --rt`: facts in, level and command out."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dorad.realtime import checks
from dorad.realtime.checks import Check, run_checks
from dorad.realtime.facts import Facts
from dorad.realtime.refusal import UNLIMITED

GOOD = Facts(
    governors={0: "performance", 1: "performance"},
    huge_pages="madvise",
    rt_runtime_us=950_000,
    rt_period_us=1_000_000,
    online=frozenset(range(4)),
    isolated=frozenset({3}),
    preemption="rt",
    interrupts={"9": frozenset({0}), "24": frozenset({0, 1})},
    locked_limit=UNLIMITED,
    priority_limit=99,
    swaps=(),
    clock="tsc",
    clocks=("tsc", "hpet"),
    machine="aarch64",
)


def test_a_well_configured_machine_passes_every_check() -> None:
    assert {found.level for found in run_checks(GOOD)} == {"PASS"}
    assert {found.hint for found in run_checks(GOOD)} == {None}


def test_a_machine_without_facts_is_not_an_error() -> None:
    assert {found.level for found in run_checks(Facts())} <= {"PASS", "WARN"}


@pytest.mark.parametrize(
    ("check", "change", "level", "text", "mend"),
    [
        (
            checks.governor,
            {"governors": {0: "performance", 1: "schedutil", 2: "schedutil"}},
            "WARN",
            "governor schedutil on cores 1-2",
            "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
        ),
        (checks.governor, {"governors": {}}, "PASS", "does not change it", None),
        (
            checks.huge_pages,
            {"huge_pages": "always"},
            "WARN",
            "always",
            "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        ),
        (
            checks.throttling,
            {"rt_runtime_us": -1},
            "WARN",
            "no limit",
            "sudo sysctl -w kernel.sched_rt_runtime_us=950000",
        ),
        (
            checks.throttling,
            {"rt_runtime_us": 0},
            "FAIL",
            "0 of every 1000 ms (sched_rt_runtime_us): nothing may run in real time",
            "sudo sysctl -w kernel.sched_rt_runtime_us=950000",
        ),
        (
            checks.throttling,
            {"rt_runtime_us": 100_000},
            "WARN",
            "100 of every 1000 ms",
            "sudo sysctl -w kernel.sched_rt_runtime_us=950000",
        ),
        (
            checks.isolation,
            {"isolated": frozenset()},
            "WARN",
            "none: other processes may run",
            (
                """sudo sed -i 's/^GRUB_CMDLINE_LINUX="/&isolcpus=domain,managed_irq,3"""
                """ nohz_full=3 rcu_nocbs=3 /' /etc/default/grub"""
                " && sudo update-grub && sudo reboot"
            ),
        ),
        (
            checks.isolation,
            {"isolated": frozenset(), "online": frozenset({0, 1})},
            "PASS",
            "none; 2 cores are too few to reserve one",
            None,
        ),
        (
            checks.preemption,
            {"preemption": "dynamic"},
            "WARN",
            "chosen at boot (PREEMPT_DYNAMIC)",
            "sudo apt install linux-image-rt-arm64 && sudo reboot",
        ),
        (
            checks.interrupts,
            {"interrupts": {"9": frozenset({0}), "24": frozenset({3}), "100": frozenset({2, 3})}},
            "WARN",
            "24, 100 may interrupt isolated cores (3)",
            "for irq in 24 100; do echo 0-2 | sudo tee /proc/irq/$irq/smp_affinity_list; done",
        ),
        (checks.interrupts, {"isolated": frozenset()}, "PASS", "2, and no core is isolated", None),
        (
            checks.locked_memory,
            {"locked_limit": 8 << 20},
            "WARN",
            "at most 8192 KiB per process",
            (
                'echo "$USER - memlock unlimited" | sudo tee /etc/security/limits.d/'
                "dorad-memlock.conf  # then log in again, and restart dorad"
            ),
        ),
        (checks.locked_memory, {"locked_limit": 0, "may_lock": True}, "PASS", "CAP_IPC_LOCK", None),
        (
            checks.priority,
            {"priority_limit": 0, "is_service": True},
            "WARN",
            "not to dorad itself",
            (
                r"printf '[Service]\nLimitRTPRIO=99\n' | sudo install -D -m 644 /dev/stdin"
                " /etc/systemd/system/dorad.service.d/rtprio.conf"
                " && sudo systemctl daemon-reload && sudo systemctl restart dorad.service"
            ),
        ),
        (
            checks.priority,
            {"priority_limit": 0},
            "FAIL",
            "none: nodes run without their `realtime`",
            (
                'echo "$USER - rtprio 99" | sudo tee /etc/security/limits.d/dorad-rtprio.conf'
                "  # then log in again, and restart dorad"
            ),
        ),
        (checks.priority, {"priority_limit": 95, "is_service": True}, "PASS", "up to 95", None),
        (checks.priority, {"priority_limit": 0, "may_prioritise": True}, "PASS", "NICE", None),
        (checks.swap, {"swaps": ("/dev/zram0",)}, "WARN", "/dev/zram0", "sudo swapoff -a"),
        (
            checks.clock,
            {"clock": "hpet"},
            "WARN",
            "hpet",
            (
                "echo tsc | sudo tee"
                " /sys/devices/system/clocksource/clocksource0/current_clocksource"
            ),
        ),
        (
            checks.clock,
            {"clock": "hpet", "clocks": ("hpet",)},
            "WARN",
            "hpet",
            "sudo dmesg | grep -i clocksource  # shows why the kernel rejects a faster one",
        ),
        (
            checks.hyperthreads,
            {"smt": True},
            "WARN",
            "on:",
            "echo off | sudo tee /sys/devices/system/cpu/smt/control",
        ),
    ],
)
def test_each_finding_has_a_level_a_text_and_a_fix(
    check: Callable[[Facts], Check],
    change: dict[str, Any],
    level: str,
    text: str,
    mend: str | None,
) -> None:
    found = check(replace(GOOD, **change))
    assert found.level == level
    assert text in found.text
    assert found.hint == mend
