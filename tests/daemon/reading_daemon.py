"""A daemon of one node: starts or adopts it, reads its output, and reports its exit.

`python -m tests.daemon.reading_daemon FOLDER` works with the holder at FOLDER/holder and the
dataflow FOLDER/dataflow.yml. It prints `reading` when it does, and the exit of the node.
"""

import asyncio
import os
import sys
from pathlib import Path

from dorad.daemon.runmodel import RunServices
from dorad.daemon.supervisor.processes import Launcher, log_name
from dorad.dataflow.load import load
from dorad.launch.command import LaunchContext
from dorad.launch.holder.client import HolderClient
from dorad.logs.dataflowlog import DataflowLog

ID = "00000000-0000-4000-8000-000000000000"


async def main(folder: Path) -> None:
    holder = await HolderClient.attach(folder / "holder")
    dataflow = load(folder / "dataflow.yml")
    (node,) = dataflow.nodes
    log = DataflowLog(ID, dataflow)
    log.begin()
    context = LaunchContext(dataflow, dict(os.environ))
    services = RunServices()
    services.store = holder
    launcher = Launcher(
        ID, holder, context, log, services, lambda node, text: log.report("warn", node, text)
    )
    if holder.kept:
        (kept,) = holder.kept
        descriptors = holder.take(log_name(kept.tag)).get(log_name(kept.tag), ())
        process = launcher.adopt(node, kept.process, kept.tag, descriptors)
    else:
        process = await launcher.start(node, "")
    print("reading", flush=True)
    print(await process.wait(), *process.stderr[-1:], flush=True)
    log.end("finished")
    await holder.end()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
