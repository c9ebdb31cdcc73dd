"""The releases that a coordinator sends: errors of its own disk, and transfers at the same time."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from dorafleet.release import supply as supply_module
from dorafleet.release import transfer
from dorafleet.release.supply import Supply
from dorafleet.ssh.errors import Code, SshError

MACHINE: Any = SimpleNamespace(id="r1")


class FakeStore:
    """A store with one release."""

    folder = "/store"

    def find(self, release: str) -> Any:
        return SimpleNamespace(manifest=release)

    def lacking(self, manifest: Any) -> list[Any]:
        return []


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The prepared files that each transfer was given."""
    given: list[Any] = []

    async def send(
        machines: Any, bundle: Any, store: Any, progress: Any, *, pieces: Any, lines: Any
    ) -> Any:
        assert lines is None
        assert pieces.entered.is_set()
        given.append(pieces)
        await asyncio.sleep(0.01)
        return [SimpleNamespace(error=None, result="sent")]

    monkeypatch.setattr(transfer, "send", send)
    return given


def fake_pieces(monkeypatch: pytest.MonkeyPatch, *errors: OSError) -> list[Any]:
    """Replace prepared files by fakes, which fail with `errors` first."""
    left, made = list(errors), []

    class FakePieces:
        def __init__(self, store: Any) -> None:
            self.entered, self.ended = threading.Event(), False
            made.append(self)

        def __enter__(self) -> Any:
            self.entered.wait(0.05)  # other transfers come meanwhile
            if left:
                raise left.pop(0)
            self.entered.set()
            return self

        def __exit__(self, *_: object) -> None:
            self.ended = True

    monkeypatch.setattr(supply_module, "Pieces", FakePieces)
    return made


async def test_transfers_that_begin_together_share_files_that_are_prepared(
    monkeypatch: pytest.MonkeyPatch, sent: list[Any]
) -> None:
    (made,) = (fake_pieces(monkeypatch),)
    supply = Supply(FakeStore())  # type: ignore[arg-type]
    await asyncio.gather(*(supply.send("x", MACHINE) for _ in range(5)))
    assert len(made) == 1
    assert sent == made * 5
    assert made[0].ended


async def test_a_disk_that_is_full_for_a_moment_fails_one_transfer(
    monkeypatch: pytest.MonkeyPatch, sent: list[Any]
) -> None:
    fake_pieces(monkeypatch, OSError(28, "No space left on device"))
    supply = Supply(FakeStore())  # type: ignore[arg-type]
    with pytest.raises(SshError, match="No space left") as caught:
        await supply.send("x", MACHINE)
    assert caught.value.code is Code.FAILED
    assert await supply.send("x", MACHINE) == "sent"
    assert len(sent) == 1


def test_a_store_that_cannot_be_read_is_a_trouble_with_a_reason() -> None:
    class Broken(FakeStore):
        def lacking(self, manifest: Any) -> list[Any]:
            raise PermissionError(13, "Permission denied")

    assert "Permission denied" in Supply(Broken()).trouble("x")  # type: ignore[arg-type]
