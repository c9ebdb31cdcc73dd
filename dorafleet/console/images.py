"""The picture that the terminal keeps: one at most, which is sent with a frame."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

from dorafleet.console.view.placeholders import USUAL_CELL, deletion, transmission

if TYPE_CHECKING:
    from dorad.control.pictures import Picture


class _Wanted(NamedTuple):
    picture: Picture
    size: tuple[int, int]
    """Columns and rows."""
    scale: float

    def replaces(self, other: _Wanted | None) -> bool:
        """Return True if it shows something else, or the same in more pixels."""
        if other is None or self.picture is not other.picture or self.size != other.size:
            return True
        return self.scale > other.scale


class TerminalPicture:
    """What the terminal shows in the cells of its picture, and what it is to show."""

    def __init__(self) -> None:
        self.number = secrets.randbelow(1 << 23) + (1 << 23)
        """Of the picture. Other programs on the terminal have theirs."""
        self.cell = USUAL_CELL
        """Width and height of a cell in pixels."""
        self._owner: object = None
        self._wanted: _Wanted | None = None
        self._sent: _Wanted | None = None
        self._kept = False
        """Whether the terminal keeps a picture."""
        self._under_way = False
        self._took: float | None = None

    def show(self, owner: object, picture: Picture, size: tuple[int, int], scale: float) -> bool:
        """Show a picture from the next frame on; return False if it is shown already.

        It is shown until this owner hides it, or another one shows a picture.
        """
        wanted = _Wanted(picture, size, scale)
        self._owner = owner
        if not wanted.replaces(self._wanted):
            return False
        self._wanted = wanted
        return True

    def hide(self, owner: object) -> None:
        """Delete the picture of this owner with the next frame, if it has one."""
        if self._owner is owner:
            self._owner = self._wanted = None

    def forget(self) -> None:
        """Send everything with the next frame: the terminal may have lost it."""
        self._sent = None

    def take(self) -> str:
        """Return what is to be sent with a frame that is written now."""
        if self._wanted is None:
            return self.end()
        if self._wanted is self._sent:
            return ""
        self._sent, self._kept, self._under_way = self._wanted, True, True
        return transmission(self._sent.picture, self._sent.size, self.number, self._sent.scale)

    def end(self) -> str:
        """Return what deletes the picture on the terminal; empty if there is none."""
        kept, self._kept, self._sent = self._kept, False, None
        return deletion(self.number) if kept else ""

    def shown(self, took: float) -> None:
        """Take the seconds that the terminal took for the last frame."""
        if self._under_way:
            self._took, self._under_way = took, False

    def took(self) -> float | None:
        """Return the seconds of the last frame with a picture, once."""
        took, self._took = self._took, None
        return took
