"""`dora view`: show a running dataflow in Foxglove or in rerun."""

from __future__ import annotations

import asyncio
import contextlib
import re
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dorad.cli.record_options import names_in
from dorad.cli.select import connect, dataflow_option, select
from dorad.commandline.reports import print_note, print_warning
from dorad.control import messages as m
from dorad.control import wiring
from dorad.control.errors import ControlError
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence

    from dorad.control.asyncclient import AsyncClient
    from dorad.daemon.run import DataflowRun
    from dorad.logrecord import LogRecord

QUEUE = 64
"""Messages of a topic that wait where they come from."""

PAST_LINES = 100
"""Log lines that a viewer gets from before."""

POLL_S = 1.0

EPILOG = """\b
Examples:
  dora view                                          prints the address for Foxglove
  dora view --topics camera/image,imu
  dora view --rerun                                  opens rerun; needs `pip install 'dorad[view]'`
  ssh robot dora view --rerun --stdout | rerun -     a robot's dataflow in rerun here
  dora view --coordinator-addr fleet.local -d demo --max-rate 5 --preview 320x240

\b
For Foxglove on another machine, forward the port: `ssh -t -L 8765:127.0.0.1:8765 robot dora view`,
and open the printed address there. Nothing is received while nobody looks. A viewer that is too
slow misses messages, which are counted; no node waits for it.
"""


def _parse_preview(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> m.Preview | None:
    if text is None:
        return None
    sizes = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text)
    if sizes is None or "0" in sizes.groups():
        raise click.BadParameter("write WIDTHxHEIGHT, such as 320x240")
    return m.Preview(width=int(sizes[1]), height=int(sizes[2]))


@click.command("view", epilog=EPILOG)
@dataflow_option
@click.option(
    "--topics",
    metavar="A/B,...",
    multiple=True,
    help="Only these topics; a node is all its outputs.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port on loopback for Foxglove; default: 8765, or a free one.",
)
@click.option("--rerun", is_flag=True, help="Show everything in rerun instead.")
@click.option("--stdout", is_flag=True, help="With --rerun: write the stream for `rerun -`.")
@click.option(
    "--max-rate",
    type=click.FloatRange(min=0.01),
    metavar="HZ",
    help="At most so many messages a second of each topic.",
)
@click.option(
    "--preview",
    callback=_parse_preview,
    metavar="WIDTHxHEIGHT",
    help="Make pictures smaller, and cut other data, where they come from.",
)
def view(
    *,
    dataflow: str | None,
    topics: tuple[str, ...],
    port: int | None,
    rerun: bool,
    stdout: bool,
    max_rate: float | None,
    preview: m.Preview | None,
) -> int:
    """Show the messages and log lines of a running dataflow in Foxglove, or in rerun.

    Foxglove connects to the printed address, whose last part is a secret.
    """
    from dorad.control.asyncclient import AsyncClient
    from dorad.dataflow.load import from_descriptor

    if stdout and not rerun:
        raise click.UsageError("--stdout goes with --rerun")
    with connect() as client:
        uuid = select(client, dataflow)
        info = client.info(uuid)
    known = from_descriptor(info.descriptor, path=Path(info.path))
    wanted = names_in(topics)
    wiring.topics_named(known, wanted)
    name = info.info.name or Path(info.path).stem

    async def show() -> None:
        async with AsyncClient() as own:
            source = ServerSource(own, info.info.uuid, preview)
            if rerun:
                await _to_rerun(source, chooser(wanted), name, max_rate, stdout=stdout)
            else:
                await _to_foxglove(source, chooser(wanted), name, max_rate, port)

    with contextlib.suppress(KeyboardInterrupt):  # the usual way to end it
        try:
            asyncio.run(show())
        except* ControlError as group:
            raise _first(group) from None
        print_note("the dataflow has ended")
    return 0


def _first(group: BaseExceptionGroup) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def chooser(wanted: Sequence[str]) -> Callable[[str], bool]:
    """Return what says whether a topic is shown: all without a name; a node is all its outputs."""
    return lambda topic: not wanted or topic in wanted or topic.partition("/")[0] in wanted


async def _to_foxglove(
    source: ServerSource | RunSource,
    chosen: Callable[[str], bool],
    name: str,
    rate: float | None,
    port: int | None,
) -> None:
    from dorad.view.foxglove import FoxgloveServer

    server = FoxgloveServer(source, chosen, name=name, rate=rate)

    def announce(address: str) -> None:
        print_note(f"in Foxglove, open a connection to {address}")

    try:
        await server.run(port, announce)
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on port {port}: {error.strerror}; choose another one with --port"
        ) from error
    finally:
        report_dropped(server.dropped, "viewers were too slow")
        report_dropped(server.displaced, "dora view was too slow")


async def _to_rerun(
    source: ServerSource,
    chosen: Callable[[str], bool],
    name: str,
    rate: float | None,
    *,
    stdout: bool,
) -> None:
    from dorad.view.rerun import RerunView

    view = RerunView(source, chosen, name=name, rate=rate)
    try:
        await view.run(stdout=stdout)
    finally:
        report_dropped(view.dropped, "rerun was too slow")


def report_dropped(dropped: Counter[str], why: str) -> None:
    """Warn of messages that were not shown."""
    for topic, count in sorted(dropped.items()):
        if count:
            print_warning(f"{count} messages of {visible(topic)} were not shown: {why}")


class ServerSource:
    """A dataflow of a daemon, or of a coordinator."""

    def __init__(self, client: AsyncClient, uuid: str, preview: m.Preview | None = None) -> None:
        self._client = client
        self._uuid = uuid
        self._preview = preview

    async def topics(self) -> list[str]:
        """Return its topics. Raises ControlError."""
        known = await self._client.topics(self._uuid)
        return [f"{each.node}/{each.output}" for each in known.topics]

    async def messages(
        self, topics: Collection[str], rate: float | None
    ) -> AsyncGenerator[tuple[m.TopicHeader, bytes | memoryview], None]:
        """Yield the messages of topics. Raises ControlError."""
        wanted = m.TopicSubscribe(
            dataflow=self._uuid,
            topics=sorted(topics),
            queue_size=QUEUE,
            max_rate_hz=rate,
            preview=self._preview,
        )
        async with self._client.frames(wanted) as frames:
            async for each in frames:
                yield each

    async def lines(self) -> AsyncGenerator[list[LogRecord], None]:
        """Yield log lines. Raises ControlError."""
        async with self._client.logs(self._uuid, follow=True, tail=PAST_LINES) as blocks:
            async for block in blocks:
                yield block.lines

    async def changes(self) -> AsyncGenerator[None, None]:
        """Yield when nodes come or go, until the dataflow ends. Raises ControlError."""
        async with self._client.watch(self._uuid) as events:
            async for event in events:
                if event.what == "dataflow-ended":
                    return
                if event.what == "topology-changed":
                    yield


class RunSource:
    """The dataflow of `dora run`, in this process."""

    def __init__(self, run: DataflowRun) -> None:
        self._run = run

    async def topics(self) -> list[str]:
        """Return its topics."""
        return [f"{each.node}/{each.output}" for each in wiring.topics(self._run.dataflow)]

    async def messages(
        self, topics: Collection[str], rate: float | None
    ) -> AsyncGenerator[tuple[m.TopicHeader, bytes | memoryview], None]:
        """Yield the messages of topics. Raises ControlError."""
        from dorad.daemon.subscription import reducing

        if not self._run.opened:
            raise ControlError("unavailable", "the dataflow has not started yet")
        reduce = reducing.encoded(m.TopicSubscribe(max_rate_hz=rate))
        chosen = wiring.topics_named(self._run.dataflow, sorted(topics))
        async with contextlib.aclosing(
            self._run.subscriptions.subscribe(chosen, queue_size=QUEUE, stream=0, reduce=reduce)
        ) as messages:
            async for each in messages:
                yield each

    async def lines(self) -> AsyncGenerator[list[LogRecord], None]:
        """Yield log lines. Raises ControlError."""
        from dorad.daemon.logreads import read_logs

        log = self._run.log
        wanted = m.LogRead(follow=True, tail=PAST_LINES)
        async for block in read_logs(wanted, self._run.dataflow_id, log.folder, log):
            yield block.lines

    async def changes(self) -> AsyncGenerator[None, None]:
        """Yield every second: nodes may be added."""
        while True:
            await asyncio.sleep(POLL_S)
            yield


@asynccontextmanager
async def viewed(run: DataflowRun) -> AsyncIterator[None]:
    """Serve Foxglove as long as a dataflow runs in this process."""
    name = run.dataflow.path.stem
    serving = asyncio.create_task(_to_foxglove(RunSource(run), chooser(()), name, None, None))
    try:
        yield
    finally:
        serving.cancel()
        await asyncio.wait({serving})
        if not serving.cancelled() and (error := serving.exception()) is not None:
            print_warning(f"the dataflow could not be viewed: {error}")
