"""What the store keeps of alerts: enough for the next coordinator, not each of their changes."""

from collections.abc import Sequence
from typing import Any

import pytest

from dorad.control.alertbook import StoredAlert
from dorad.control.errors import ControlError
from dorad.control.messages import Finding
from dorafleet.coordinator import alertstore
from dorafleet.coordinator.alertstore import AlertStore
from dorafleet.coordinator.writer import MeasuredWriter


class Writer:
    """Counts what is written for each robot."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def keep(self, puts: dict[str, bytes], _deletes: Sequence[str] = ()) -> None:
        self.keys += puts

    async def commit(self, record: dict[str, Any], *, puts: dict[str, bytes]) -> None:
        self.keys += [record["action"], *puts]


def alert(subject: str) -> StoredAlert:
    finding = Finding(cause="c", subject=subject, text="t", severity="fail", since=0.0)
    return StoredAlert(finding=finding)


async def test_a_robot_whose_alerts_change_all_the_time_does_not_fill_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alertstore, "EVERY_S", 0.0)
    writer: Any = Writer()
    store = AlertStore(writer, writer)
    for number in range(100):
        alerts = {"liar": [alert(f"s{number}")]}
        if number == 50:
            alerts["arm1"] = [alert("real")]
        await store.keep(alerts, alerts.keys())
    assert writer.keys == ["alerts/liar", "alerts/arm1"]
    await store.keep_acknowledged({"liar": [alert("acknowledged")]}, {"action": "ack"})
    assert writer.keys[2:] == ["ack", "alerts/liar"]


async def test_an_acknowledgement_of_many_robots_has_one_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dorafleet.coordinator.writer.MAX_KEYS", 2)
    writer: Any = Writer()
    store = AlertStore(writer, writer)
    alerts = {f"r{number}": [alert("same")] for number in range(5)}
    await store.keep_acknowledged(alerts, {"action": "ack"})
    assert writer.keys == ["ack", *(f"alerts/r{number}" for number in range(5))]
    # Nothing has changed since.
    monkeypatch.setattr(alertstore, "ROBOT_S", 0.0)
    await store.keep(alerts, alerts.keys())
    assert len(writer.keys) == 6


async def test_what_cannot_be_stored_is_reported_once_also_if_a_part_of_it_can(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Full:
        async def keep(self, puts: dict[str, bytes], _deletes: Sequence[str] = ()) -> None:
            if "large" in puts:
                raise ControlError("too-large", "the value is too large")

    full: Any = Full()
    measured = MeasuredWriter(full, "alerts are not stored")
    for _ in range(3):
        assert not await measured.put({"small": b""}, {"large": b""})
    assert [each.getMessage() for each in caplog.records if each.levelname == "WARNING"] == [
        "alerts are not stored: the value is too large"
    ]
    assert await measured.put({"small": b""})
    assert not measured.failed
