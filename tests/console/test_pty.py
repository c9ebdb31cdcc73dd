"""The program on terminals that do not behave: keys torn apart, questions without an answer."""

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import tempfile
import termios
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest

from dorad.control import messages as m
from tests.harness.waiting import DEADLINE_S, until

from .fakefleet import FakeFleet, serving

QUESTION = b"\x1b[6n"
ANSWER = b"\x1b[1;1R"


class Line:
    """A program on a terminal of 100x30, seen from the other end of the line."""

    def __init__(self, answers: bool) -> None:
        self._answers = answers
        self.ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.before = termios.tcgetattr(self.theirs)
        self.seen = b""
        self.process: asyncio.subprocess.Process

    async def start(self, socket: Path, *words: str, given: Mapping[str, str], code: str) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("DORA")}
        env |= {"DORA_SOCKET": str(socket), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **given}
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", f"{code}; from dorafleet.cli.main import main; main()"),
            *("console", *words),
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            start_new_session=True,
            env=env,
        )
        asyncio.get_running_loop().add_reader(self.ours, self._read)

    def _read(self) -> None:
        with suppress(OSError):
            data = os.read(self.ours, 65536)
            self.seen += data
            if self._answers and QUESTION in data:
                os.write(self.ours, ANSWER)

    async def until(self, holds: bytes | Callable[[], bool], after: int = 0) -> None:
        await until(
            lambda: holds() if callable(holds) else holds in self.seen[after:],
            why=lambda: f"{holds!r} did not come; the end of what came: {self.seen[-3000:]!r}",
        )

    async def keys(self, *parts: bytes, pause: float = 0.0) -> None:
        for part in parts:
            os.write(self.ours, part)
            await asyncio.sleep(pause)

    async def ends(self) -> int:
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.wait()

    def stall(self) -> None:
        """Stop reading."""
        asyncio.get_running_loop().remove_reader(self.ours)

    def hang_up(self) -> None:
        """Let the terminal be gone."""
        self.stall()
        os.close(self.ours)
        self.ours = -1

    def close(self) -> None:
        if self.ours >= 0:
            self.hang_up()
        os.close(self.theirs)


@asynccontextmanager
async def program(
    fleet: FakeFleet,
    *words: str,
    answers: bool = True,
    env: Mapping[str, str] | None = None,
    code: str = "pass",
    line: Line | None = None,
) -> AsyncIterator[Line]:
    """Run the console on this line; `code` is run before it."""
    line = line or Line(answers)
    with tempfile.TemporaryDirectory() as folder:
        async with serving(fleet, Path(folder)) as target:
            await line.start(target.path, *words, given=env or {}, code=code)
            try:
                yield line
            finally:
                if line.process.returncode is None:
                    line.process.kill()
                    await line.process.wait()
                line.close()


async def test_a_terminal_that_never_answers_shows_everything_and_gets_its_settings_back() -> None:
    fleet = FakeFleet(3)
    async with program(fleet, answers=False) as line:
        await line.until(b"3 of 3")
        at = len(line.seen)
        fleet.fail("arm002")
        await line.until(b"node gripper failed", after=at)
        await line.keys(b"q")
        assert await line.ends() == 0
        assert termios.tcgetattr(line.theirs) == line.before
        # The other screen, the mouse and the cursor are given back.
        for sequence in (b"\x1b[?1049l", b"\x1b[?1000l", b"\x1b[?25h"):
            assert line.seen.rindex(sequence) > at


async def test_a_light_terminal_gets_a_light_theme_and_the_keys_typed_meanwhile_count() -> None:
    fleet, colour = FakeFleet(3), {"COLORTERM": "truecolor"}
    async with program(fleet, answers=False, env=colour) as line:
        await line.until(b"\x1b]11;?\x1b\\")
        await line.keys(b"?", b"\x1b]11;rgb:ffff/fff", b"f/ffff\x1b\\", ANSWER)
        await line.until(b"Home End")
        assert b"48;2;255;255;255" in line.seen
        await line.keys(b"q")
        assert await line.ends() == 0


async def test_the_cursor_of_the_terminal_follows_the_row() -> None:
    def row() -> int:
        places = re.findall(rb"\x1b\[(\d+);\d+H", line.seen)
        return int(places[-1]) if places else 0

    async with program(FakeFleet(3)) as line:
        await line.until(b"3 of 3")
        text = line.seen.decode(errors="replace")
        first = int(re.findall(r"\x1b\[(\d+);1H[^H]*arm001", text)[-1])
        await line.until(lambda: row() == first)
        await line.keys(b"\x1b[B")
        await line.until(lambda: row() == first + 1)
        await line.keys(b"q")
        assert await line.ends() == 0


@pytest.mark.long
async def test_keys_that_a_slow_line_tears_apart_change_nothing() -> None:
    fleet = FakeFleet(3)
    fleet.fail("arm002")
    async with program(fleet) as line:
        await line.until(b"3 of 3")
        for arrow in (b"A", b"B", b"C", b"D", b"H", b"F"):
            # Longer than the program waits for the rest of a sequence.
            await line.keys(b"\x1b", b"[", arrow, pause=0.2)
        await line.keys(b"\x1b", b"O", b"B", pause=0.2)
        at = len(line.seen)
        await line.keys(b"?")
        await line.until(b"Keys", after=at)
        await line.keys(b"q")
        assert await line.ends() == 0
        assert fleet.changes == []


@pytest.mark.long
async def test_a_parameter_is_set_at_a_terminal() -> None:
    fleet = FakeFleet(1)
    fleet.params = {"arm001/pick": [m.Param(key="speed", value=0.5)]}
    async with program(fleet, "--start", "params arm001/pick planner") as line:
        await line.until(b"speed")  # Fleet, which is shown first, has one row, too
        await line.keys(b"a")
        await line.until(b"Set the value")
        await line.keys(b"v")
        await line.until(b"enter continues")
        await line.keys(b"1.5\r")
        await line.until(b"dora param set planner speed 1.5")
        await line.keys(b"\x1b[C")
        async with asyncio.timeout(DEADLINE_S):
            while b": done" not in line.seen:  # a yes counts once the question can be read
                await line.keys(b"\r", pause=0.2)
        await line.keys(b"q")
        assert await line.ends() == 0
        assert termios.tcgetattr(line.theirs) == line.before
        wanted = m.ParamSet(node="planner", key="speed", value=1.5, dataflow="arm001/pick")
        assert fleet.changes == [("param.set", wanted)]


async def test_keys_that_ssh_delivers_in_pieces_are_put_together() -> None:
    async with program(FakeFleet(2), env={"SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}) as line:
        await line.until(b"2 of 2")
        for _ in range(20):  # a busy machine delivers pieces later than meant
            at = len(line.seen)
            await line.keys(b"\x1b", b"[", b"B", pause=0.2)
            await line.keys(b"\r")
            await line.until(b"> arm00", after=at)
            if b"> arm002" in line.seen[at:]:
                break
            await line.keys(b"\x1b")
            await line.until(b"2 of 2", after=at)
        else:
            raise AssertionError("an arrow key in pieces was never understood")


async def test_only_ascii_is_written_where_the_terminal_shows_nothing_else() -> None:
    fleet = FakeFleet(3)
    fleet.fail("arm002")
    async with program(fleet, "--ascii", "--theme", "ansi") as line:
        await line.until(b"3 of 3")
        await line.keys(b"\r")
        await line.until(b"> arm002")
        await line.keys(b"q")
        assert await line.ends() == 0
        assert line.seen.isascii()
        # Sixteen colours: none with a number or with red, green and blue.
        assert b"38;5" not in line.seen and b"38;2" not in line.seen


@pytest.mark.long
async def test_a_stopped_or_ended_console_gives_the_terminal_back() -> None:
    async with program(FakeFleet(3)) as line:
        await line.until(b"3 of 3")
        process = psutil.Process(line.process.pid)
        await line.keys(b"\x1a")
        await line.until(lambda: process.status() == psutil.STATUS_STOPPED)
        assert termios.tcgetattr(line.theirs) == line.before
        at = len(line.seen)
        process.send_signal(signal.SIGCONT)
        await line.until(b"3 of 3", after=at)
        # Textual would take the terminal once more, and not give it back.
        process.send_signal(signal.SIGCONT)
        at = len(line.seen)
        await line.keys(b"?")
        await line.until(b"Keys", after=at)
        process.send_signal(signal.SIGTERM)
        assert await line.ends() == 128 + signal.SIGTERM
        assert termios.tcgetattr(line.theirs) == line.before
        await line.until(b"\x1b[?1049l", after=at)


async def test_a_mistake_in_the_console_itself_gives_the_terminal_back_and_is_shown() -> None:
    broken = "from dorafleet.console.screens.help import HelpScreen; HelpScreen.paint = None"
    async with program(FakeFleet(3), code=broken) as line:
        await line.until(b"3 of 3")
        at = len(line.seen)
        await line.keys(b"?")
        assert await line.ends() == 1
        assert termios.tcgetattr(line.theirs) == line.before
        await line.until(b"TypeError", after=at)
        assert line.seen.rindex(b"\x1b[?1049l") < line.seen.rindex(b"TypeError")


async def test_a_console_whose_terminal_is_gone_ends_also_without_a_signal() -> None:
    async with program(FakeFleet(3)) as line:
        await line.until(b"3 of 3")
        line.hang_up()
        assert await line.ends() == 128 + signal.SIGHUP


@pytest.mark.long
async def test_a_console_ends_on_a_terminal_that_has_stopped_reading() -> None:
    async with program(FakeFleet(60), answers=False) as line:
        await line.until(b"0 of 6")
        line.stall()
        counters, written = psutil.Process(line.process.pid).io_counters, -1
        while written != (written := counters().write_chars):
            # Ctrl-L paints everything again; the line has room for some of that. For the first two
            # seconds a terminal that has not answered gets nothing.
            await line.keys(*(b"\x0c",) * 6, pause=0.4)
        line.process.terminate()
        assert await line.ends() == 128 + signal.SIGTERM
