"""Names of dataflows: checks new ones, and finds the dataflow that a user means."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from dorad.control.errors import ControlError
from dorad.phrases import first_of

_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,63}")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


MAX_NAMED = 10
"""Dataflows that an error names."""


class Named(Protocol):
    """The identity of a dataflow."""

    @property
    def uuid(self) -> str:
        """The UUID of this run."""

    @property
    def name(self) -> str | None:
        """The name that the user gave it."""

    @property
    def running(self) -> bool:
        """Whether it has not ended."""


def check_name(name: str, known: Sequence[Named]) -> None:
    """Raise ControlError unless a new dataflow may have this name."""
    if not _NAME.fullmatch(name):
        raise ControlError(
            "bad-request",
            f"{name!r} is not a valid name: use 1 to 64 of A-Z a-z 0-9 _ . - and no leading -",
        )
    if _UUID.fullmatch(name):
        raise ControlError("bad-request", f"{name!r} looks like a UUID; choose another name")
    for other in known:
        if other.running and other.name == name:
            raise ControlError(
                "exists",
                f"a dataflow named {name!r} runs already ({other.uuid})",
                f"choose another with --name, or stop it: dora stop {name}",
            )


def check_uuid(text: str) -> None:
    """Raise ControlError unless `text` is a UUID in lower case."""
    if not _UUID.fullmatch(text):
        raise ControlError("bad-request", f"{text!r} is not a UUID in lower case")


def find(
    known: Sequence[Named],
    wanted: str | None,
    *,
    ended_too: bool = False,
    elsewhere: Callable[[], Iterable[str]] = tuple,
) -> int:
    """Return the index in `known`, which is sorted by age, of the dataflow that `wanted` means.

    A UUID finds any dataflow. A name finds a running one; None finds the only running one. With
    `ended_too` both find the last one that ended if none runs. `elsewhere` returns names of others
    that may be meant, for the error.

    Raises:
        ControlError: there is no such dataflow, or there are several.
    """
    indices = range(len(known))
    if wanted is not None and _UUID.fullmatch(wanted):
        matching = [index for index in indices if known[index].uuid == wanted]
        if not matching:
            raise ControlError("not-found", f"there is no dataflow {wanted}", "see `dora list`")
        return matching[0]
    named = [index for index in indices if wanted is None or known[index].name == wanted]
    running = [index for index in named if known[index].running]
    if len(running) == 1:
        return running[0]
    if len(running) > 1:
        which = ", ".join(_describe(known[index]) for index in running)
        raise ControlError("ambiguous", f"{len(running)} dataflows run: {which}", "name one")
    if named and ended_too:
        return named[-1]
    if wanted is None:
        if others := list(elsewhere()):
            alone = f"no dataflow of the fleet runs; robots run: {first_of(others, MAX_NAMED)}"
            raise ControlError("not-found", alone, "name one")
        raise ControlError("not-found", "no dataflow runs", "start one with `dora start`")
    if named:
        raise ControlError(
            "not-found",
            f"dataflow {wanted!r} has ended ({known[named[-1]].uuid})",
            "`dora start` starts it again; its UUID finds the one that has ended",
        )
    there = first_of(
        [*sorted({entry.name for entry in known if entry.name and entry.running}), *elsewhere()],
        MAX_NAMED,
    )
    raise ControlError(
        "not-found",
        f"no dataflow is named {wanted!r}" + (f"; there are: {there}" if there else ""),
        "see `dora list`",
    )


def ended(entry: Named) -> ControlError:
    """Return the error for a request about a run that has ended."""
    return ControlError("not-found", f"dataflow {entry.uuid} has ended")


def _describe(entry: Named) -> str:
    return f"{entry.name} ({entry.uuid})" if entry.name else entry.uuid
