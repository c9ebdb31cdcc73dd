"""Somebody who follows pages in a shell: types their commands, and checks what these print."""

from __future__ import annotations

import os
import re
import select
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from hwtests.robots.network import address
from tests.docs.markdown import ROOT, Command, Section

COMMAND_S = 300.0
BOOT_S = 150.0
EXIT_S = 180.0
LOOK_S = 60.0
LOOKS = (
    "dora list",
    "dora logs",
    "dora node",
    "dora topic",
    "dorafleet drift",
    "dorafleet status",
    "journalctl",
)
"""Commands that change nothing: a reader repeats them until what was started is there."""
STARTED = "cat /proc/1/stat | cut -d' ' -f22"
"""Prints when a robot was booted: containers share the kernel's boot_id."""
SCREEN = """\
(timeout 60 sh -c 'until grep -q {last} screen; do sleep 0.2; done'; printf q) |
    timeout 90 script --quiet --flush --return --command {command} screen >terminal"""
"""Runs a program on a terminal until it shows something, and presses q."""
SEQUENCE = re.compile(r"\x1b(\[[0-9;?<>=]*[a-zA-Z]|\][^\x07]*\x07|[()][A-Z0-9]|[=>PX^_\\])")


class Reader:
    """A shell, and the folder in which pages are followed. A context manager that leaves it."""

    def __init__(self, shell: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
        """Start the command `shell`, which reads lines from stdin; `folder` as we see it."""
        self.folder = folder
        self._process = subprocess.Popen(
            shell,
            cwd=ROOT,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            assert self._process.wait(EXIT_S) == 0
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()

    def run(self, line: str, timeout: float = COMMAND_S) -> tuple[int, str]:
        """Type a line; return its exit code and what it prints."""
        self._type(f"{{ {line}\n}} </dev/null; code=$?; echo; echo ==ended $code\n")
        ended, text = self._until(line, rb"(?m)^==ended (\d+)\n", timeout)
        return int(ended[1]), text

    def enter(self, line: str, prompt: str, timeout: float) -> None:
        """Type a line that starts another shell; wait until it prints `prompt`."""
        self._type(f"{line}\n")
        self._until(line, prompt.encode(), timeout)

    def _type(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def _until(self, line: str, pattern: bytes, timeout: float) -> tuple[re.Match[bytes], str]:
        """Read until something is printed; return its match, and the text before it."""
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        end = time.monotonic() + timeout
        while not (match := re.search(pattern, self._unread)):
            readable, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
            data = os.read(pipe, 65536) if readable else b""
            self._unread += data
            printed = self._unread.decode(errors="replace")
            assert data, f"`{line}` did not end; it printed:\n{printed}"
        text = self._unread[: match.start()].decode(errors="replace")
        self._unread = self._unread[match.end() :]
        return match, text

    def on_robot(self, robot: str, line: str) -> tuple[int, str]:
        """Type a line on a robot; return its exit code and what it prints."""
        there = address(int(robot.removeprefix("robot")))
        return self.run(f"ssh -o ConnectTimeout=5 root@{there} {shlex.quote(line)}")

    def write(self, section: Section) -> None:
        """Write the files of a section; they belong to the owner of the folder."""
        for name, text in section.files.items():
            owner = self.folder.stat()
            path = self.folder / name
            for parent in reversed(path.relative_to(self.folder).parents[:-1]):
                (self.folder / parent).mkdir(exist_ok=True)
                os.chown(self.folder / parent, owner.st_uid, owner.st_gid)
            path.write_text(text, encoding="utf-8")
            os.chown(path, owner.st_uid, owner.st_gid)

    def follow(self, command: Command) -> None:
        """Run a command of a page, and check what it prints."""
        if (
            command.robot is None
            and command.line.startswith("ssh ")
            and " " not in (command.line.removeprefix("ssh "))
        ):
            return None  # a login: the commands after it have the robot in their prompt
        if command.line == "reboot":
            self.reboot(command)
        elif command.line == "dorafleet":
            self.look(command)
        else:
            end = time.monotonic() + (LOOK_S if command.line.startswith(LOOKS) else 0.0)
            while True:
                code, text = self.type(command)
                try:
                    return command.check(code, text)
                except AssertionError:
                    if time.monotonic() > end:
                        raise
                time.sleep(0.3)
        return None

    def type(self, command: Command) -> tuple[int, str]:
        """Type a command where the page says; return its exit code and what it prints."""
        if command.robot is None:
            return self.run(command.line)
        return self.on_robot(command.robot, f"cd {command.folder} && {{ {command.line}; }}")

    def reboot(self, command: Command) -> None:
        """Reboot a robot, and wait as a reader does."""
        assert command.robot is not None
        before = self.on_robot(command.robot, STARTED)
        assert before[0] == 0, before[1]
        self.on_robot(command.robot, "reboot")
        end = time.monotonic() + BOOT_S
        ready = f"systemctl is-system-running --wait >/dev/null; {STARTED}"
        while (after := self.on_robot(command.robot, ready))[0] or after[1] == before[1]:
            assert time.monotonic() < end, f"{command.robot} does not come back: {after}"
            time.sleep(0.2)

    def look(self, command: Command) -> None:
        """Open the console, and check what it shows."""
        self.run("touch screen; export TERM=xterm-256color COLUMNS=80 LINES=24")
        line = SCREEN.format(last=shlex.quote("robot5"), command=command.line)
        code, text = self.run(line)
        shown = (self.folder / "screen").read_text(errors="replace")
        assert code == 0, text + shown
        plain = SEQUENCE.sub("\n", shown)
        for expected in command.expected:
            assert all(word in plain for word in expected.split()), f"{expected!r} not in:\n{plain}"
