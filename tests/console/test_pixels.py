"""The program on terminals like kitty: what it asks, sends and deletes, and late answers."""

import os
import re
import signal
import termios
from contextlib import suppress

import numpy as np
import psutil
import pytest

from dorafleet.console.view.placeholders import PLACEHOLDER
from tests.control.test_pictures import raw

from .fakefleet import FakeFleet
from .test_placeholders import SEQUENCE, Pictures
from .test_pty import Line, program

NAME = b"\x1bP>|kitty(0.41.1)\x1b\\"
OK = b"\x1b_Gi=31;OK\x1b\\"
NO = b"\x1b_Gi=31;ENOTSUPPORTED:no\x1b\\"
ASKED = re.compile(rb"\x1b\[>q|\x1b_G[^\x1b]*a=q[^\x1b]*\x1b\\|\x1b\[6n")
ENDS = b",q=2\x1b\\"
"""Ends what shows a picture, and what deletes one."""
CELL = PLACEHOLDER.encode()
PICTURE = ("--start", "topic pick camera/image")
IMAGE = {"width": 64, "height": 48, "encoding": "rgb8"}


class Kitty(Line):
    """A terminal that answers all questions in their order."""

    def __init__(self, name: bytes = NAME, picture: bytes = OK, late_from: bytes = b"\0") -> None:
        """From the question that begins with `late_from` on it answers once it is asked to."""
        super().__init__(answers=False)
        self._replies = {b"\x1b[>": name, b"\x1b_G": picture, b"\x1b[6": b"\x1b[1;1R"}
        self._late_from = late_from
        self._read_to = 0
        self.late: list[bytes] | None = None

    def _read(self) -> None:
        with suppress(OSError):
            self.seen += os.read(self.ours, 65536)
            for match in ASKED.finditer(self.seen, self._read_to):
                self._read_to = match.end()
                if match[0].startswith(self._late_from):
                    self.late = []
                reply = self._replies[match[0][:3]]
                if self.late is None:
                    os.write(self.ours, reply)
                else:
                    self.late.append(reply)

    def answer(self) -> None:
        """Send the answers that were held back, each byte alone, and those to come at once."""
        assert self.late is not None
        replies, self.late, self._late_from = self.late, None, b"\0"
        for byte in b"".join(replies):
            os.write(self.ours, bytes([byte]))

    @property
    def pictures(self) -> Pictures:
        """The pictures that it keeps by now."""
        shown = Pictures()
        end = self.seen.rfind(ENDS) + len(ENDS) if ENDS in self.seen else 0
        text = self.seen[:end].decode(errors="replace")
        found = (match[0] for match in SEQUENCE.finditer(text) if "a=q" not in match[0])
        shown.take("".join(found))
        return shown


def camera() -> FakeFleet:
    fleet = FakeFleet(1)
    noise = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    fleet.messages = [("camera/image", raw(noise.tobytes()), IMAGE)]
    return fleet


async def test_a_picture_is_shown_in_pixels_and_deleted_at_the_end_and_when_it_is_stopped() -> None:
    # As over SSH: neither variable says that it has all colours.
    async with program(camera(), *PICTURE, env={"TERM": "xterm-kitty"}, line=Kitty()) as line:
        assert isinstance(line, Kitty)

        def shown() -> bool:
            kept = line.pictures.kept.values()
            return any(each.pixels.shape == (48, 64, 3) for each in kept)

        await line.until(shown)
        (number,) = line.pictures.kept
        colour = ";".join(map(str, number.to_bytes(3, "big")))
        cell = rf"\x1b\[38;2;{colour};48;2;\d+;\d+;\d+m{PLACEHOLDER}\u0305\u0305{PLACEHOLDER}"
        assert re.search(cell, line.seen.decode(errors="replace"))
        process = psutil.Process(line.process.pid)
        await line.keys(b"\x1a")
        await line.until(lambda: process.status() == psutil.STATUS_STOPPED)
        await line.until(lambda: not line.pictures.kept)
        assert termios.tcgetattr(line.theirs) == line.before
        process.send_signal(signal.SIGCONT)
        await line.until(shown)
        await line.keys(b"q")
        assert await line.ends() == 0
        await line.until(lambda: line.seen.count(b"\x1b[?1049l") == 2)
        deleted = line.seen.rindex(b"a=d,d=I")
        assert line.seen.rindex(b"a=p,U=1") < deleted < line.seen.rindex(b"\x1b[?1049l")


@pytest.mark.long
@pytest.mark.parametrize(
    "line",
    [
        lambda: Kitty(picture=NO),
        lambda: Kitty(picture=b""),
        lambda: Kitty(b"\x1bP>|tmux 3.4\x1b\\"),
        lambda: Kitty(b""),
    ],
    ids=["no", "silent", "tmux", "nameless"],
)
async def test_other_terminals_get_half_blocks(line) -> None:  # type: ignore[no-untyped-def]
    async with program(camera(), *PICTURE, line=line()) as terminal:
        await terminal.until("▀".encode())
        await terminal.keys(b"q")
        assert await terminal.ends() == 0
        assert CELL not in terminal.seen and b"a=t" not in terminal.seen
        assert (b"a=q" in terminal.seen) == (NAME in terminal._replies.values())


@pytest.mark.long
@pytest.mark.parametrize("options", [("--ascii",), ("--theme", "ansi"), ("--theme", "mono")])
async def test_no_terminal_is_asked_for_what_is_not_used(options: tuple[str, ...]) -> None:
    async with program(camera(), *PICTURE, *options, line=Kitty()) as line:
        await line.until(b"view: picture")
        await line.keys(b"q")
        assert await line.ends() == 0
        assert CELL not in line.seen and b"\x1b_G" not in line.seen


@pytest.mark.parametrize("late_from", [b"\x1b[>q", b"\x1b_G"], ids=["name", "picture"])
async def test_late_answers_are_not_taken_for_keys(late_from: bytes) -> None:
    # A `q` that were taken for a key would end the program.
    name, picture = b"\x1bP>|kitty(0.41.1) q\x1b\\", b"\x1b_Gi=31;EINVAL:q\x1b\\"
    async with program(camera(), line=Kitty(name, picture, late_from)) as line:
        assert isinstance(line, Kitty)
        await line.until(b"1 of 1")
        line.answer()
        await line.until(lambda: line.late is None)
        await line.keys(b"?")
        await line.until(b"Keys")
        await line.keys(b"q")
        assert await line.ends() == 0
        for trace in (b"does nothing", b"left out", b"EINVAL", b">|kitty"):
            assert trace not in line.seen
        assert CELL not in line.seen
        assert termios.tcgetattr(line.theirs) == line.before
