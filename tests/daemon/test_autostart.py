"""Which dataflows start automatically, and when the watchdog is fed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dorad.control.messages import Share
from dorad.daemon.measuring.watching import AGENT_S, ended
from dorad.daemon.record import Record
from dorad.daemon.registry import due, first_since_boot, forgettable
from dorad.daemon.state import Options, Row
from dorad.notify import Heartbeat, unhealthy

if TYPE_CHECKING:
    from pathlib import Path


def record(uuid: str, *, enabled: bool, ended: bool, lost: bool = False) -> Record:
    return Record(
        Row(
            uuid=uuid,
            name=uuid,
            path="/x",
            original={},
            descriptor={},
            options=Options(),
            log_dir="/x",
            status="finished" if ended else "running",
            started_at=0.0,
            ended_at=1.0 if ended else None,
            enabled=enabled,
        ),
        lost=lost,
    )


RECORDS = [
    record("stopped", enabled=True, ended=True),
    record("lost", enabled=True, ended=True, lost=True),
    record("running", enabled=True, ended=False),
    record("disabled", enabled=False, ended=True, lost=True),
]


def test_all_enabled_dataflows_start_at_boot() -> None:
    assert [each.uuid for each in due(RECORDS, boot=True)] == ["stopped", "lost"]


def test_later_only_lost_dataflows_start() -> None:
    assert [each.uuid for each in due(RECORDS, boot=False)] == ["lost"]


@pytest.mark.parametrize(("maximum", "forgotten"), [(5, []), (2, []), (1, ["a"]), (0, ["a", "b"])])
def test_the_oldest_ended_dataflows_are_forgotten_unless_enabled(
    maximum: int, forgotten: list[str]
) -> None:
    records = [*RECORDS[:3], *(record(uuid, enabled=False, ended=True) for uuid in "ab")]
    assert [each.uuid for each in forgettable(records, maximum)] == forgotten


def test_a_dataflow_of_a_fleet_that_was_lost_with_its_machine_has_time_to_start_again() -> None:
    own, fleets = (record(name, enabled=False, ended=False) for name in ("own", "fleets"))
    fleets.row.options = Options(share=Share(machine="arm1", placement={}))
    for each in (own, fleets):
        each.lose("its nodes ended together with their host")
        each.end()
    at = fleets.row.ended_at
    names = [state.name for state, _ in ended([own, fleets], at + 1.0)]
    assert names == ["own"]
    assert [state.name for state, _ in ended([own, fleets], at + AGENT_S)] == ["own", "fleets"]
    # The clock was ahead at the boot.
    assert [state.name for state, _ in ended([own, fleets], at - 3600)] == ["own", "fleets"]
    # What fails later has failed.
    fleets.lost = False
    assert [state.name for state, _ in ended([fleets], at + 1.0)] == ["fleets"]


def test_an_empty_folder_means_a_boot(tmp_path: Path) -> None:
    assert first_since_boot(tmp_path)
    assert not first_since_boot(tmp_path)


@pytest.mark.parametrize(
    ("beat", "fed"),
    [
        (Heartbeat(0.01, None), True),
        (Heartbeat(2.4, None), True),
        (Heartbeat(2.6, None), False),
        (Heartbeat(0.01, "it has no supervisor task"), False),
    ],
)
def test_the_watchdog_is_fed_only_while_the_daemon_is_healthy(
    beat: Heartbeat, *, fed: bool
) -> None:
    assert (unhealthy(beat, 5.0) is None) is fed
