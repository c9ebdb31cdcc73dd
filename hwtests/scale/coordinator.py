"""A real coordinator with a cluster of simulated robots, and an operator who asks it."""

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from hwtests.bench.process import MeasurementError

ADDRESS = "127.0.0.1"
READY_S = 30.0


@dataclass(frozen=True, slots=True)
class Coordinator:
    """A coordinator that runs."""

    pid: int
    port: int
    state: Path


def cluster(robots: Sequence[str]) -> str:
    """Return a cluster.yml of these robots."""
    lines = [f"  - {{id: {name}, host: {name}.invalid}}" for name in robots]
    return "\n".join([f"coordinator: {{addr: {ADDRESS}}}", "machines:", *lines, ""])


@asynccontextmanager
async def coordinator(folder: Path, robots: Sequence[str]) -> AsyncIterator[Coordinator]:
    """Run a coordinator with its state in `folder` until the block is left.

    Raises:
        MeasurementError: it does not get ready.
    """
    file, state = folder / "cluster.yml", folder / "state"
    file.write_text(cluster(robots))
    command = ["-m", "dorafleet.cli", "serve", str(file), "--state", str(state), "--port", "0"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--tls", stdout=PIPE, stderr=STDOUT
    )
    try:
        port = await _port(process)
        draining = asyncio.create_task(_drain(process, folder / "coordinator.log"))
        yield Coordinator(process.pid, port, state)
        draining.cancel()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _port(process: Process) -> int:
    assert process.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(READY_S):
        while line := (await process.stdout.readline()).decode():
            lines.append(line)
            if " ready at " in line:
                return int(line.partition(" port ")[2].split(",")[0].split()[0])
    raise MeasurementError(f"the coordinator has ended: {''.join(lines)[-2000:]}")


async def _drain(process: Process, log: Path) -> None:
    assert process.stdout is not None
    with log.open("ab") as file:
        while line := await process.stdout.readline():
            file.write(line)
