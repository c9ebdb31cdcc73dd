"""When a disk is getting full."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.control.errors import ControlError
from dorad.control.messages.agent import AgentReport
from dorad.daemon.measuring.summary import CrashHistory, findings
from dorad.diskspace import EVERY_S, DiskWatch, LowDisk, Space, low_disks, spaces
from dorafleet.coordinator.reports import MAX_WARNINGS, check_report

if TYPE_CHECKING:
    from pathlib import Path

GB = 1_000_000_000


def space(free: float, size: float = 16 * GB, **more: object) -> Space:
    wanted = Space("/var/lib/dorad", 1, int(size), int(free), 0, 0)
    return wanted._replace(**more)  # type: ignore[arg-type]


def severity(*spaces: Space, before: tuple[str, ...] = ()) -> list[str]:
    return [each.severity for each in low_disks(spaces, before)]


def test_a_disk_is_low_before_it_is_full() -> None:
    assert severity(space(2 * GB)) == []
    assert severity(space(0.9 * GB)) == ["warn"]
    assert severity(space(0.09 * GB)) == ["fail"]
    assert severity(space(0)) == ["fail"]


def test_a_large_disk_is_low_by_bytes_and_a_small_one_by_its_share() -> None:
    assert severity(space(5 * GB, 1000 * GB)) == []
    assert severity(space(0.9 * GB, 1000 * GB)) == ["warn"]
    assert severity(space(1_000_000, 4_000_000)) == []
    assert severity(space(300_000, 4_000_000)) == ["warn"]
    assert severity(space(40_000, 4_000_000)) == ["fail"]


def test_a_disk_without_room_for_files_is_full_although_it_has_bytes() -> None:
    (found,) = low_disks([space(8 * GB, files=1000, free_files=5)])
    assert (found.severity, "5 more files of 1000" in found.text) == ("fail", True)
    assert severity(space(8 * GB, files=1000, free_files=50)) == ["warn"]
    assert severity(space(8 * GB, files=1000, free_files=500)) == []
    assert severity(space(8 * GB, files=0, free_files=0)) == []


def test_a_finding_does_not_come_and_go_at_the_threshold() -> None:
    assert severity(space(1.1 * GB), before=("/var/lib/dorad",)) == ["warn"]
    assert severity(space(1.3 * GB), before=("/var/lib/dorad",)) == []


def test_folders_of_one_disk_are_one_finding() -> None:
    spaces = [space(0), space(0, folder="/other"), space(0, folder="/third", device=2)]
    assert [each.folder for each in low_disks(spaces)] == ["/var/lib/dorad", "/third"]


@given(st.integers(0, 10**14), st.integers(0, 10**14))
def test_less_room_is_never_less_severe(first: int, second: int) -> None:
    levels = ["", "warn", "fail"]

    def level(free: int) -> int:
        found: list[LowDisk] = low_disks([space(free, 10**14)])
        return levels.index(found[0].severity if found else "")

    low, high = sorted((first, second))
    assert level(low) >= level(high)


def test_a_low_disk_is_an_alert_of_the_machine() -> None:
    disks = low_disks([space(0)])
    (found,) = findings(5.0, [], [], [], CrashHistory(), "", disks=disks)
    assert (found.cause, found.subject, found.severity) == ("disk-full", "/var/lib/dorad", "fail")


def test_disks_are_measured_again_only_after_a_while(tmp_path: Path) -> None:
    now = [100.0]
    watch = DiskWatch([tmp_path, tmp_path / "missing"], lambda: now[0])
    first = watch.low()
    assert watch.low() is first
    now[0] += EVERY_S
    assert watch.low() is not first
    (measured,) = spaces([tmp_path, tmp_path / "missing"])
    assert 0 < measured.free <= measured.size


def test_a_report_with_very_many_warnings_is_refused() -> None:
    check_report(AgentReport(time=1.0, warnings=["low"] * MAX_WARNINGS))
    with pytest.raises(ControlError, match="more than 20 warnings"):
        check_report(AgentReport(time=1.0, warnings=["low"] * (MAX_WARNINGS + 1)))
