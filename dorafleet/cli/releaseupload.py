"""`dorafleet release upload` and `stored`: files that the coordinator keeps for robots."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click

from dorad.commandline.tables import age, plain, print_object, print_table
from dorad.phrases import size_text
from dorad.terminal import visible
from dorafleet.cli.arguments import coordinator_options, json_option
from dorafleet.cli.coordinator import connect, targets_of
from dorafleet.cli.releaseoptions import open_store, release_argument, store_option

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from websockets.asyncio.connection import Connection

    from dorad.control.client import Client
    from dorad.control.target import Targets
    from dorafleet.coordinator.uploadmessages import OtherCoordinator, StoredRelease
    from dorafleet.inventory.model import Machine
    from dorafleet.release.progress import Progress
    from dorafleet.release.store import Bundle, Store
    from dorafleet.release.upload import Sent
    from dorafleet.rollout.messages import ReleasePut
    from dorafleet.ssh.fanout import MachineOutcome

COORDINATOR = "coordinator"
"""What it is called in the display of transfers."""

UPLOAD_EPILOG = """\b
Examples:
  dorafleet release upload arm
  dorafleet release upload arm@4 --json | jq -c 'select(.event == "result")'
\b
The coordinator keeps the files, and sends them to robots that wait for them: over SSH, or over a
connection that the robot opens, also when this machine is gone. It checks each file against the
signed manifest. What it has already is not sent again; an interrupted upload continues where it
stopped. `rollout start --upload` does the same first.
Exit code 0: the coordinator can send the release. 1: it cannot.
"""
STORED_EPILOG = """\b
Examples:
  dorafleet release stored
  dorafleet release stored --json | jq '.releases[] | select(.state != "complete")'
\b
Files that no order, no rollout and no way back needs are removed a day after they came.
Coordinators that wait to lead copy what something needs; the last lines say what each lacks.
Exit code 1: files are lacking of a release that something needs, here or on another coordinator.
"""
COLUMNS = ("Release", "Id", "Files", "Size", "Ago", "By", "Kept because")


@click.command(epilog=UPLOAD_EPILOG)
@release_argument("release")
@store_option
@json_option
@coordinator_options
def upload(release: str, *, store: Path | None, as_json: bool, state: Path, port: int) -> int:
    """Leave RELEASE with the coordinator, which sends it to robots."""
    releases = open_store(store)
    with connect(state, port) as client:
        bundle = releases.find(release)
        upload_now(client, targets_of(state, port), bundle, releases, as_json=as_json)
    return 0


@click.command(epilog=STORED_EPILOG)
@json_option
@coordinator_options
def stored(*, as_json: bool, state: Path, port: int) -> int:
    """List the releases whose files the coordinator keeps, and why."""
    from dorad.control.messages import Nothing
    from dorafleet.coordinator.uploadmessages import RELEASE_STORED

    with connect(state, port) as client:
        answer = client.call(RELEASE_STORED, Nothing())
    lost = [each for each in answer.releases if each.state != "complete" and each.needed]
    if as_json:
        print_object(plain(answer))
    else:
        now = time.time()
        print_table(COLUMNS, [_row(each, now) for each in answer.releases])
        place = f"{size_text(answer.used)} of {size_text(answer.limit)} in {answer.folder}"
        click.echo(visible(place))
        for each in lost:
            name = each.label or each.release[:12]
            where = f"; they are on {each.host}" if each.host else ""
            click.echo(
                visible(
                    f"{name}: files are lacking here{where}: `dorafleet release upload {name}`, or "
                    f"copy that coordinator's folder `uploads` to {answer.folder}"
                ),
                err=True,
            )
        for other in answer.others:
            click.echo(visible(_other(other, answer.releases)), err=bool(other.lacking))
    return 1 if lost or any(each.lacking for each in answer.others) else 0


def _other(other: OtherCoordinator, releases: Sequence[StoredRelease]) -> str:
    """Return what another coordinator lacks, as text."""
    heard = f"{other.name}, {age(max(0.0, time.time() - other.at))} ago"
    if not other.lacking:
        return f"{heard}: has what is needed"
    labels = {each.release: each.label for each in releases}
    names = [labels.get(each) or each[:12] for each in other.lacking]
    trouble = f": {other.trouble}" if other.trouble else ", which are copied"
    return f"{heard}: lacks {', '.join(names)}{trouble}"


def _row(each: StoredRelease, now: float) -> tuple[str, ...]:
    files = {"complete": "complete", "elsewhere": f"on {each.host}"}.get(each.state, "")
    left = age(max(0.0, each.until - now))
    return (
        each.label or "-",
        each.release[:12],
        files or f"{size_text(each.lacking)} lacking",
        size_text(each.size),
        age(max(0.0, now - each.at)),
        each.by or "-",
        each.needed or f"nothing needs it: removed in {left}",
    )


def upload_now(
    client: Client, targets: Targets, bundle: Bundle, store: Store, *, as_json: bool
) -> None:
    """Upload what the coordinator lacks of a release, unless it can send it, and show that.

    Raises:
        ControlError: it refuses the release.
        click.ClickException: it does not have the whole release now.
    """
    from dorafleet.cli.progress import check_outcomes
    from dorafleet.cli.releasepush import Display
    from dorafleet.coordinator.uploadmessages import RELEASE_LACKING
    from dorafleet.release.upload import Sent
    from dorafleet.rollout.messages import RELEASE_PUT, ReleaseRef
    from dorafleet.ssh.fanout import MachineOutcome

    client.call(RELEASE_PUT, put_of(bundle))
    display = Display([COORDINATOR], as_json=as_json)
    if client.call(RELEASE_LACKING, ReleaseRef(release=bundle.id)).sends:
        display.result(MachineOutcome(machine(), Sent(0, 0, 0, 0, 0.0)))
        return
    with display.rows:
        sending = send_files(targets, bundle, store, display.update, display.result)
        outcome = asyncio.run(sending)
    check_outcomes([outcome], f"does not have {bundle}")


async def can_send(targets: Targets, bundle: Bundle) -> bool:
    """Return True if the coordinator can send a registered release. Raises ControlError."""
    from dorad.control.asyncclient import AsyncClient
    from dorafleet.coordinator.uploadmessages import RELEASE_LACKING
    from dorafleet.rollout.messages import ReleaseRef

    async with AsyncClient(targets) as client:
        return (await client.call(RELEASE_LACKING, ReleaseRef(release=bundle.id))).sends


async def send_files(
    targets: Targets,
    bundle: Bundle,
    store: Store,
    on_progress: Callable[[Progress], object] = lambda _: None,
    on_outcome: Callable[[MachineOutcome[Sent]], object] = lambda _: None,
) -> MachineOutcome[Sent]:
    """Send a registered release to the coordinator that leads, over lost connections.

    Raises:
        BuildError: the store does not have the whole release.
    """
    from dorad.control.asyncclient import AsyncClient
    from dorafleet.coordinator.uploadmessages import RELEASE_UPLOAD, UPLOAD_TICKET
    from dorafleet.release.socketline import lines_over
    from dorafleet.release.transfer import send
    from dorafleet.rollout.messages import ReleaseRef

    @asynccontextmanager
    async def line(_machine: str) -> AsyncIterator[Connection]:
        async with AsyncClient(targets) as client:
            ticket = await client.call(RELEASE_UPLOAD, ReleaseRef(release=bundle.id))
            headers = {UPLOAD_TICKET: ticket.ticket}
            async with client.beside(ticket.path, headers) as connection:
                yield connection

    lines = lines_over(line)
    (outcome,) = await send([machine()], bundle, store, on_progress, on_outcome, lines=lines)
    return outcome


def machine() -> Machine:
    """Return what stands for the coordinator in a transfer."""
    from dorafleet.inventory.model import Machine

    return Machine(COORDINATOR, COORDINATOR)


def put_of(bundle: Bundle) -> ReleasePut:
    """Return the request that registers a release."""
    import zlib

    from dorafleet.rollout.messages import ReleasePut

    return ReleasePut(
        content=zlib.compress(bundle.content), signature=bundle.signature.decode("ascii", "replace")
    )
