"""A path for a shared holder, and daemons to kill."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import psutil

from dorad.launch.holder.client import HolderClient
from dorad.launch.host import HostListener
from dorad.launch.model import Command
from dorad.launch.spawner import Process

PROGRAM = Path(__file__).with_name("daemon_program.py")


class Daemon:
    """A running `daemon_program.py`."""

    def __init__(self, **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )

    def ask(self, *words: Any) -> dict[str, Any]:
        self.send(*words)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        return dict(json.loads(self.process.stdout.readline()))

    def send(self, *words: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()

    def spawn(self, tag: str, command: Command, verb: str = "spawn") -> dict[str, Any]:
        return self.ask(verb, tag, command.argv, str(command.cwd), dict(command.env))

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Recorder(HostListener):
    """Records what goes wrong with a host."""

    def __init__(self) -> None:
        self.died = asyncio.Event()
        self.problems: list[str] = []

    def on_died(self) -> None:
        self.died.set()

    def on_problem(self, text: str) -> None:
        self.problems.append(text)


class Place:
    """The path where a holder listens; holders found here end with the test."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "holder.sock"
        self.holders: list[HolderClient] = []
        self.pids: set[int] = set()

    async def attach(self, listener: HostListener | None = None) -> HolderClient:
        holder = await HolderClient.attach(self.path, listener)
        self.holders.append(holder)
        self.pids.add(holder.pid)
        return holder

    def daemon(self, **options: Any) -> Daemon:
        daemon = Daemon(**options)
        self.pids.add(daemon.ask("attach", str(self.path))["holder"])
        return daemon

    async def clear(self) -> None:
        for holder in self.holders:
            await holder.detach()
        for pid in self.pids:
            try:
                keeping = psutil.Process(pid)
                if str(self.path) in " ".join(keeping.cmdline()):
                    keeping.kill()
            except psutil.NoSuchProcess:
                continue


async def start(holder: HolderClient, command: Command, tag: str = "") -> Process:
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        return await holder.spawn(command, sink, sink, tag=tag)
    finally:
        os.close(sink)


def read_all(fd: int) -> str:
    with os.fdopen(fd, "rb") as pipe:
        return pipe.read().decode()
