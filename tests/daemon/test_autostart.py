"""Which dataflows start automatically, and when the watchdog is fed."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from msgspec.structs import replace

from dorad.control.messages import Share
from dorad.daemon.measuring.watching import AGENT_S, ended
from dorad.daemon.paths import DaemonPaths
from dorad.daemon.record import Record
from dorad.daemon.recordstore import RecordStore
from dorad.daemon.registry import Registry, due, forgettable
from dorad.daemon.state import Options, Row, State
from dorad.launch.host import Host
from dorad.notify import Heartbeat, unhealthy


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


class KilledError(Exception):
    """Stands for SIGKILL."""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry that has read two dataflows of one name, of which the second is enabled."""
    state = State(tmp_path / "state.db", pytest.fail)
    for uuid, enabled in (("first", False), ("second", True)):
        state.put(replace(record(uuid, enabled=enabled, ended=True).row, name="flow"))
    found = Registry(state, cast("Host", None), DaemonPaths(tmp_path, tmp_path), pytest.fail)
    found._records = found.store.load()
    yield found
    state.close()


def test_what_a_killed_daemon_has_not_started_at_boot_the_next_one_starts(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def start(_: Registry, old: Record) -> Record:
        if not started:
            started.append("killed")
            raise KilledError
        started.append(old.uuid)
        return old

    monkeypatch.setattr(Registry, "start_again", start)
    with pytest.raises(KilledError):
        registry.autostart()
    registry.autostart()
    registry.autostart()
    assert started == ["killed", "second"]


def test_a_lost_dataflow_that_a_killed_daemon_has_not_started_again_the_next_one_starts(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(Registry, "start_again", lambda _, old: started.append(old.uuid) or old)
    registry.autostart()
    started.clear()
    (lost,) = [each for each in registry.records if each.row.enabled]
    lost.lose("its nodes ended together with their host")
    lost.end()
    registry.store.put(lost)
    # Killed here.
    registry._records = registry.store.load()
    registry.autostart()
    assert started == ["second"]
    (lost,) = [each for each in registry.records if each.row.enabled]
    registry.enable(lost, enabled=True)
    registry._records = registry.store.load()
    registry.autostart()
    assert started == ["second"], "what is enabled later waits for the boot"


def test_of_dataflows_with_one_name_one_is_enabled_at_any_moment(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two writes, a daemon left two of them, and the next boot chose the older."""
    put = RecordStore.put

    def put_one(store: RecordStore, changed: Record) -> None:
        if changed.uuid == "second":
            raise KilledError
        put(store, changed)

    monkeypatch.setattr(RecordStore, "put", put_one)
    with pytest.raises(KilledError):
        registry.enable(registry.records[0], enabled=True)
    assert [each.uuid for each in registry.store.load() if each.row.enabled] == ["second"]
    monkeypatch.undo()
    registry._records = registry.store.load()
    registry.enable(registry.records[0], enabled=True)
    assert [each.uuid for each in registry.store.load() if each.row.enabled] == ["first"]


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
