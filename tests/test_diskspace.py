"""When a disk is getting full, or will be soon."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.control.errors import ControlError
from dorad.control.messages import NodeInfo, NodeMetrics
from dorad.control.messages.agent import AgentReport
from dorad.control.nextsteps import next_step
from dorad.daemon.measuring.summary import CrashHistory, findings
from dorad.diskspace import (
    BLOCK_S,
    BLOCKS,
    EVERY_S,
    SOON_S,
    DiskWatch,
    FillingDisk,
    LowDisk,
    Room,
    Space,
    low_disks,
    room_after,
    spaces,
)
from dorafleet.coordinator.reports import MAX_WARNINGS, check_report

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


def rooms(steps: Iterable[float], free: float = 20 * GB) -> list[Room]:
    """Return what is known each five seconds, of a disk that loses so many bytes a second."""
    room, known = Room(), []
    for number, step in enumerate(steps):
        free -= EVERY_S * step
        room = room_after(room, EVERY_S * number, int(free))
        known.append(room)
    return known


MINUTE = round(BLOCK_S / EVERY_S)


def test_a_disk_that_is_full_in_half_an_hour_fills_after_five_minutes_until_that_ends() -> None:
    known = rooms([20e6] * (BLOCKS * MINUTE + 1) + [0.0] * MINUTE)
    assert not any(each.fills for each in known[: BLOCKS * MINUTE])
    assert known[BLOCKS * MINUTE].fills
    assert known[BLOCKS * MINUTE].rate == pytest.approx(20e6)
    assert known[BLOCKS * MINUTE].seconds == pytest.approx(700, abs=10)
    assert not known[-1].fills


def test_what_ends_before_or_takes_hours_fills_no_disk() -> None:
    build = [60e6] * (4 * MINUTE) + [0.0] * MINUTE
    slow = [20 * GB / (2 * SOON_S)] * (20 * MINUTE)
    turns = ([30e6] * MINUTE + [-30e6] * MINUTE) * 10
    download = [50e3] * MINUTE + [50e6] * (3 * MINUTE) + [50e3] * (9 * MINUTE)
    for steps in (build, slow, turns, download):
        assert not any(each.fills for each in rooms(steps))


def test_nothing_is_known_of_a_disk_after_the_machine_slept() -> None:
    room = rooms([20e6] * (BLOCKS * MINUTE + 1))[-1]
    at, free = room.blocks[-1]
    assert room_after(room, at + 3 * BLOCK_S, free - 1) == Room(((at + 3 * BLOCK_S, free - 1),))


@given(st.lists(st.floats(-50e6, 50e6), max_size=120))
def test_a_disk_fills_only_if_it_would_be_full_soon(steps: list[float]) -> None:
    before = Room()
    for room in rooms(step for step in steps for _ in range(4)):
        assert len(room.blocks) <= BLOCKS + 1
        if room.fills and not before.fills:
            assert room.seconds < SOON_S
            assert room.blocks[-1][1] < room.blocks[0][1]
        before = room


def node(name: str, written: float) -> NodeInfo:
    return NodeInfo("u", "pick", name, "running", 7, 0, NodeMetrics(disk_write=written))


def test_a_disk_that_fills_is_an_alert_with_the_node_that_writes_most() -> None:
    disk = FillingDisk("/var/lib/dorad", 48e6, 1490.0)

    def text(*nodes: NodeInfo) -> str:
        (only,) = findings(5.0, nodes, [], [], CrashHistory(), "", filling=[disk])
        assert (only.cause, only.subject, only.severity) == ("disk-fills", disk.folder, "warn")
        assert "du -xh --max-depth 2 /var/lib/dorad" in next_step(only)
        return only.text

    full = "the disk of /var/lib/dorad loses 48.0 MB/s and is full in about 25 min"
    assert text(node("cam", 1e6), node("logger", 47e6)) == f"{full}: node logger writes most"
    assert text(node("cam", 1e6)) == full
    assert text() == full


def test_a_disk_is_low_or_fills_but_never_both(tmp_path: Path) -> None:
    watch = DiskWatch([tmp_path], lambda: now)
    free = 4 * GB

    def measured(folders: object) -> list[Space]:
        return [Space(str(tmp_path), 1, 100 * GB, int(free), 0, 0)]

    kinds = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dorad.diskspace.spaces", measured)
        for number in range(12 * MINUTE):
            now, free = 100.0 + EVERY_S * number, max(0.0, free - EVERY_S * 8e6)
            kinds.add((bool(watch.low()), bool(watch.filling())))
    assert kinds == {(False, False), (False, True), (True, False)}


def test_a_report_with_very_many_warnings_is_refused() -> None:
    check_report(AgentReport(time=1.0, warnings=["low"] * MAX_WARNINGS))
    with pytest.raises(ControlError, match="more than 20 warnings"):
        check_report(AgentReport(time=1.0, warnings=["low"] * (MAX_WARNINGS + 1)))
