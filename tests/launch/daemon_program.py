"""A stand-in for a daemon with a process holder. Reads commands from stdin, a JSON list a line.

["attach", PATH], ["spawn", TAG, ARGV, CWD, ENV] (stores stdout and stderr as TAG), ["request",
(as spawn)] (answers before the process has started), ["pipes", N], ["socket"]. Prints one JSON
object for each; {"error"} if it failed.
"""

import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from dorad.launch.holder.client import HolderClient
from dorad.launch.model import Command, LaunchError

kept_open: list[Any] = []


async def spawn(
    holder: HolderClient, tag: str, argv: list[str], cwd: str, env: Any
) -> dict[str, Any]:
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    holder.store(tag, [out_read, err_read])
    process = await holder.spawn(
        Command(tuple(argv), Path(cwd), env), out_write, err_write, tag=tag
    )
    os.close(out_write)
    os.close(err_write)
    return {"pid": process.pid, "started": process.started}


def pipes(holder: HolderClient, count: int) -> dict[str, Any]:
    """Store pipes; each contains its number, written after it was stored."""
    for number in range(count):
        read, write = os.pipe()
        holder.store(f"pipe/{number}", [read])
        os.close(read)
        os.write(write, b"%d" % number)
        os.close(write)
    return {}


def connection(holder: HolderClient) -> dict[str, Any]:
    """Store both ends of a connection for the next daemon."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    holder.store("ours", [ours.fileno()])
    holder.store("theirs", [theirs.fileno()])
    theirs.send(b"sent before")
    kept_open.extend((ours, theirs))
    return {}


async def do(
    holder: HolderClient | None, verb: str, *words: Any
) -> tuple[HolderClient | None, Any]:
    if verb == "attach":
        holder = await HolderClient.attach(Path(words[0]))
        return holder, {"holder": holder.pid, "tags": [kept.tag for kept in holder.kept]}
    assert holder
    if verb == "spawn":
        return holder, await spawn(holder, *words)
    if verb == "request":
        kept_open.append(asyncio.create_task(spawn(holder, *words)))
        await asyncio.sleep(0)
        return holder, {}
    return holder, pipes(holder, *words) if verb == "pipes" else connection(holder)


async def main() -> None:
    holder: HolderClient | None = None
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            holder, answer = await do(holder, *json.loads(line))
        except LaunchError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)
    os._exit(0)


asyncio.run(main())
