"""Facts read from /proc and /sys of imagined robots."""

from pathlib import Path

import pytest

from dorad.realtime.facts import Facts, ProcReader, parse_cores, spell_cores
from dorad.realtime.refusal import UNLIMITED

_LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max locked memory         unlimited            unlimited            bytes
Max realtime priority     80                   80
"""


def write(root: Path, **files: str) -> ProcReader:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return ProcReader(root)


def test_all_facts_are_read(tmp_path: Path) -> None:
    clock = "sys/devices/system/clocksource/clocksource0"
    reader = write(
        tmp_path,
        **{
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
            "sys/devices/system/cpu/cpu11/cpufreq/scaling_governor": "performance",
            "sys/devices/system/cpu/online": "0-11",
            "sys/devices/system/cpu/isolated": "10-11",
            "sys/devices/system/cpu/smt/active": "1",
            "sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never",
            "proc/sys/kernel/sched_rt_runtime_us": "-1",
            "proc/sys/kernel/sched_rt_period_us": "1000000",
            "proc/version": "Linux version 6.12 #1 SMP PREEMPT_DYNAMIC Debian",
            "proc/cmdline": "quiet preempt=voluntary",
            "proc/irq/24/effective_affinity_list": "11",
            "proc/irq/25/smp_affinity_list": "0-9",
            "proc/irq/default_smp_affinity": "fff",
            "proc/7/limits": _LIMITS,
            "proc/7/status": "Name:\tdorad\nCapEff:\t0000000000804000",
            "proc/7/cgroup": "0::/system.slice/dorad.service",
            "proc/swaps": "Filename Type\n/dev/zram0 partition 1 2 3",
            f"{clock}/current_clocksource": "hpet",
            f"{clock}/available_clocksource": "tsc hpet",
        },
    )
    found = reader.facts(7)
    assert found.governors == {0: "powersave", 11: "performance"}
    assert (found.online, found.isolated) == (frozenset(range(12)), frozenset({10, 11}))
    assert (found.huge_pages, found.smt, found.swaps) == ("always", True, ("/dev/zram0",))
    assert (found.rt_runtime_us, found.rt_period_us) == (-1, 1_000_000)
    assert found.preemption == "voluntary"
    assert found.interrupts == {"24": frozenset({11}), "25": frozenset(range(10))}
    assert (found.locked_limit, found.priority_limit) == (UNLIMITED, 80)
    assert (found.may_lock, found.may_prioritise, found.is_service) == (True, True, True)
    assert (found.clock, found.clocks) == ("hpet", ("tsc", "hpet"))


def test_missing_files_give_empty_facts(tmp_path: Path) -> None:
    found = ProcReader(tmp_path).facts()
    assert found == Facts(machine=found.machine)


@pytest.mark.parametrize(
    ("version", "extra", "kind"),
    [
        ("#1 SMP PREEMPT_RT Debian", {}, "rt"),
        ("#1 SMP", {"sys/kernel/realtime": "1"}, "rt"),
        ("#1 SMP PREEMPT_DYNAMIC", {}, "dynamic"),
        (
            "#1 SMP PREEMPT_DYNAMIC",
            {"sys/kernel/debug/sched/preempt": "none voluntary (full) lazy"},
            "full",
        ),
        ("#1 SMP PREEMPT", {}, "full"),
        ("#1 SMP", {}, "voluntary"),
    ],
)
def test_each_kind_of_preemption_is_recognised(
    tmp_path: Path, version: str, extra: dict[str, str], kind: str
) -> None:
    assert write(tmp_path, **{"proc/version": version}, **extra).facts().preemption == kind


@pytest.mark.parametrize("text", ["", "0", "0-3", "0,2,4", "1-2,5-7,9"])
def test_lists_of_cores_are_read_and_written(text: str) -> None:
    assert spell_cores(parse_cores(text)) == text


def test_the_facts_of_this_machine_can_be_read() -> None:
    assert ProcReader().facts().priority_limit is not None
