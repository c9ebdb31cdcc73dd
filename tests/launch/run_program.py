"""A stand-in for `dora run`: starts the commands on stdin, and prints pids and exits.

One JSON line in: a list of [argv, cwd, env]. Lines out: {"holder", "pids"}, then {"pid", "exit"}.
"""

import asyncio
import json
import sys
from pathlib import Path

from dorad.launch.holder.client import HolderClient
from dorad.launch.model import Command
from dorad.launch.spawner import Process


async def report(process: Process) -> None:
    how = await process.wait()
    print(json.dumps({"pid": process.pid, "exit": str(how)}), flush=True)


async def main() -> None:
    commands = [Command(tuple(a), Path(c), e) for a, c, e in json.loads(sys.stdin.readline())]
    async with HolderClient.start() as holder:
        processes = [await holder.spawn(command, 2, 2) for command in commands]
        pids = [process.pid for process in processes]
        print(json.dumps({"holder": holder.pid, "pids": pids}), flush=True)
        await asyncio.gather(*map(report, processes))
        print(json.dumps({"died": holder.died}), flush=True)
        await asyncio.Event().wait()


asyncio.run(main())
