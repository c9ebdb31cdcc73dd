"""Finding a dataflow by what a user calls it. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from dorad.control.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,63}")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Named(Protocol):
    """A dataflow, as far as it is looked for."""

    @property
    def uuid(self) -> str:
        """Which run of a dataflow."""

    @property
    def name(self) -> str | None:
        """What its user called it."""

    @property
    def running(self) -> bool:
        """Whether it has not ended."""


def check_name(name: str, known: Sequence[Named]) -> None:
    """Raise ControlError unless a new dataflow may be called `name`."""
    if not _NAME.fullmatch(name):
        raise ControlError(
            "bad-request",
            f"{name!r} is no name: it has 1 to 64 of A-Z a-z 0-9 _ . - and begins with no -",
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


def find(known: Sequence[Named], wanted: str | None, *, ended_too: bool = False) -> int:
    """Return the place in `known` (the oldest first) of the dataflow that is meant.

    By UUID any is found; by name a running one, and with `ended_too` also the one that has ended
    last; None means the only one that runs, or with `ended_too` the last that did.

    Raises:
        ControlError: there is none, or several could be meant.
    """
    paths = range(len(known))
    if wanted is not None and _UUID.fullmatch(wanted):
        matching = [place for place in paths if known[place].uuid == wanted]
        if not matching:
            raise ControlError("not-found", f"there is no dataflow {wanted}", "see `dora list`")
        return matching[0]
    named = [place for place in paths if wanted is None or known[place].name == wanted]
    running = [place for place in named if known[place].running]
    if len(running) == 1:
        return running[0]
    if len(running) > 1:
        which = ", ".join(_describe(known[place]) for place in running)
        raise ControlError("ambiguous", f"{len(running)} dataflows run: {which}", "name one")
    if named and ended_too:
        return named[-1]
    if wanted is None:
        raise ControlError("not-found", "no dataflow runs", "start one with `dora start`")
    if named:
        raise ControlError(
            "not-found",
            f"dataflow {wanted!r} has ended ({known[named[-1]].uuid})",
            "give its UUID",
        )
    there = ", ".join(sorted({entry.name for entry in known if entry.name and entry.running}))
    raise ControlError(
        "not-found",
        f"no dataflow is named {wanted!r}" + (f"; there are: {there}" if there else ""),
        "see `dora list`",
    )


def _describe(entry: Named) -> str:
    return f"{entry.name} ({entry.uuid})" if entry.name else entry.uuid
