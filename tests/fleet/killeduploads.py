"""A folder of uploads whose process SIGKILL ends at each change of the file system, in turn.

`python -m tests.fleet.killeduploads FOLDER KEY` prints, for each place, which releases count as
complete after the kill, after the next upload, and after a collection that was killed there.
"""

import asyncio
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection, serve

from dorad.release.connection import receive_over
from dorafleet.cli.releaseupload import machine
from dorafleet.release.build import BuildOptions, build
from dorafleet.release.signingkey import choose
from dorafleet.release.socketline import lines_over
from dorafleet.release.store import Bundle, Store
from dorafleet.release.transfer import TransferOptions, send
from dorafleet.release.uploads import Uploads

FLOW = "nodes:\n  - {id: camera, path: camera.py, args: --model model.bin}\n"
CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.utime", "os.chmod"}
MAX_PLACES = 300


def die_at(place: int, folder: Path) -> None:
    """Let SIGKILL end this process before its change number `place` in a folder."""
    changes = 0

    def hook(event: str, given: tuple[Any, ...]) -> None:
        nonlocal changes
        if event not in CHANGES or not str(given[0]).startswith(str(folder)):
            return
        if event == "open" and not given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        changes += 1
        if changes == place:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def survives(place: int, folder: Path, work: Callable[[], object]) -> bool:
    """Do work in a process that is killed at a place; return whether it has ended before."""
    child = os.fork()
    if not child:
        die_at(place, folder)
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return not os.WIFSIGNALED(status)


async def upload(uploads: Uploads, store: Store, bundle: Bundle) -> None:
    async def accept(connection: ServerConnection) -> None:
        await receive_over(connection, uploads.destination(bundle.id))

    async with serve(accept, "127.0.0.1", 0, compression=None) as server:
        port = server.sockets[0].getsockname()[1]

        @asynccontextmanager
        async def line(_machine: str) -> AsyncIterator[Connection]:
            async with connect(f"ws://127.0.0.1:{port}", compression=None) as connection:
                yield connection

        options = TransferOptions(delays=())
        (outcome,) = await send([machine()], bundle, store, options=options, lines=lines_over(line))
        assert outcome.error is None, outcome.error


def complete(uploads: Uploads) -> list[str]:
    """Return the releases that count as complete; each file of them is right."""
    every = uploads.store.all()
    for bundle in every:
        uploads.store.check(bundle)
    assert {bundle.id for bundle in every} == {e.release for e in uploads.kept() if e.complete}
    return [f"{bundle.manifest.name}@{bundle.manifest.sequence}" for bundle in every]


def main(folder: Path, key: str) -> int:
    flow = folder / "flow"
    flow.mkdir()
    (flow / "dataflow.yml").write_text(FLOW)
    (flow / "camera.py").write_text("print('camera')\n")
    store = Store(folder / "store")

    def made(seed: int) -> Bundle:
        (flow / "model.bin").write_bytes(random.Random(seed).randbytes(200_000))
        options = BuildOptions(name="pick")
        return build(flow / "dataflow.yml", store, choose(key), options).bundle

    first, second = made(1), made(2)
    before = folder / "before"
    asyncio.run(upload(Uploads(before), store, first))
    both = folder / "both"
    shutil.copytree(before, both)
    asyncio.run(upload(Uploads(both), store, second))
    ended = 0
    for place in range(1, MAX_PLACES):
        steps: dict[str, list[str]] = {}
        one, two = folder / f"up{place}", folder / f"collect{place}"
        shutil.copytree(before, one)
        uploads = Uploads(one)
        ended += survives(place, one, lambda u=uploads: asyncio.run(upload(u, store, second)))
        steps["killed"] = complete(uploads)
        uploads.collect({first.id})
        asyncio.run(upload(uploads, store, second))
        steps["next"] = complete(uploads)
        shutil.copytree(both, two)
        uploads = Uploads(two)
        ended += survives(place, two, lambda u=uploads: u.collect({first.id}))
        steps["collecting"] = complete(uploads)
        uploads.collect({first.id})
        steps["collected"] = complete(uploads)
        steps["left"] = sorted(p.name for p in two.rglob("*") if p.is_file())
        print(json.dumps(steps), flush=True)
        shutil.rmtree(one)
        shutil.rmtree(two)
        if ended >= 2 and steps["killed"] == ["pick@1", "pick@2"]:
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
