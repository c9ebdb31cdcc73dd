"""`dorafleet enrol`: give robots their place in the fleet."""

from __future__ import annotations

import asyncio
import base64
import shlex
import ssl
from typing import TYPE_CHECKING, Any

import click

from dorad.commandline.tables import print_object
from dorad.control.errors import ControlError
from dorad.terminal import local_time, visible
from dorafleet.cli.arguments import (
    accept_new_option,
    file_argument,
    file_port_option,
    json_option,
    machine_ids,
    parallel_option,
    select_machines,
    state_option,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dorad.control.client import Client
    from dorad.control.messages.agent import Certificates
    from dorafleet.cli.progress import Reporter
    from dorafleet.inventory.model import Cluster, Machine
    from dorafleet.robot.enrol import Enrolled, Known
    from dorafleet.ssh.fanout import MachineOutcome

EPILOG = """\b
Examples:
  dorafleet enrol cluster.yml                 all machines of the file
  dorafleet enrol cluster.yml arm1 arm2
  dorafleet enrol cluster.yml arm1 --again    a new key, even if arm1 is enrolled
  dorafleet enrol cluster.yml --coordinator 10.0.0.2
                                              the server has moved there
  dorafleet enrol cluster.yml arm3 --token    a robot that SSH cannot reach
\b
Each robot creates a key, which never leaves it. The coordinator signs its certificate, and the
robot's agent connects. A machine that is enrolled and connected is not changed, unless it lacks the
coordinator's address: then it gets that, and keeps its key. A failure on one machine does not
affect the others.
With --token the command uses no SSH: it prints a command to run on the robot within 15 minutes, and
on the next line the token that the command asks for there.
Exit code 0: all machines are enrolled and connected. 1: some are not.
"""


def _checked(ctx: click.Context, param: click.Parameter, addresses: Sequence[str]) -> Sequence[str]:
    """Return the addresses. Raises click.BadParameter for one that robots would refuse."""
    from dorad.agent import identity
    from dorad.control.errors import ControlError

    for address in addresses:
        try:
            identity.address_of(address)
        except ControlError as error:
            raise click.BadParameter(str(error), ctx, param) from error
    return addresses


@click.command(epilog=EPILOG)
@file_argument
@click.argument("machine", nargs=-1, shell_complete=machine_ids)
@click.option("--again", is_flag=True, help="Replace a robot's key and certificate.")
@click.option("--token", "by_token", is_flag=True, help="Print a command and a token for MACHINE.")
@click.option(
    "--coordinator",
    "addresses",
    metavar="HOST[:PORT]",
    multiple=True,
    callback=_checked,
    help="Where robots find the coordinator; may be repeated.  [default: that of FILE]",
)
@json_option
@file_port_option
@state_option
@parallel_option
@accept_new_option
def enrol(
    file: Path,
    machine: Sequence[str],
    *,
    again: bool,
    by_token: bool,
    addresses: Sequence[str],
    as_json: bool,
    port: int | None,
    state: Path,
    parallel: int,
    accept_new: bool,
) -> int:
    """Enrol the machines of FILE over SSH, so that their agents follow the coordinator."""
    from dorafleet.cli.coordinator import check_known, connect
    from dorafleet.cli.progress import Reporter, check_outcomes
    from dorafleet.inventory.load import load

    cluster = load(file)
    machines = select_machines(cluster, machine)
    coordinators = addresses or (address_of(cluster, port),)
    if by_token and (len(machine) != 1 or again or as_json):
        raise click.UsageError("--token needs exactly one MACHINE, without --again and --json")
    with connect(state, port or cluster.coordinator.port) as client:
        check_known(client, machines)
        if by_token:
            print_token(client, machines[0].id, coordinators)
            return 0
        with Reporter([each.id for each in machines], 0, as_json=as_json) as reporter:
            work = Enroller(
                client,
                coordinators,
                reporter,
                accept_new=accept_new,
                again=again,
                exact=bool(addresses),
            )
            outcomes = asyncio.run(work.run(machines, parallel))
    if as_json:
        print_object([as_plain(outcome) for outcome in outcomes])
    check_outcomes(outcomes)
    return 0


def as_plain(outcome: MachineOutcome[Enrolled]) -> dict[str, Any]:
    """Return a machine's object for `--json`; all machines have the same keys."""
    error = outcome.error
    return {
        "id": outcome.machine.id,
        "host": outcome.machine.host,
        "connected": error is None,
        "changed": outcome.result is not None and outcome.result.changed,
        "error": error and {"code": error.code, "message": error.message, "hint": error.hint},
    }


class Enroller:
    """Enrols all machines with one coordinator."""

    def __init__(
        self,
        client: Client,
        coordinators: Sequence[str],
        reporter: Reporter,
        *,
        accept_new: bool,
        again: bool = False,
        exact: bool = False,
        lost: bool = False,
    ) -> None:
        """`coordinators` are the addresses for robots: no others if `exact`.

        `again` replaces each key, `lost` only that of a robot which has lost it.
        """
        self._client = client
        self._coordinators = coordinators
        self._reporter = reporter
        self._accept_new = accept_new
        self._again = again
        self._exact = exact
        self._lost = lost
        self._known: dict[str, Known] = {}

    async def load(self) -> None:
        """Ask the coordinator which robots it has enrolled. Raises ControlError."""
        self._known = await asyncio.to_thread(ask_known, self._client)

    async def run(
        self, machines: Sequence[Machine], parallel: int
    ) -> list[MachineOutcome[Enrolled]]:
        """Enrol up to `parallel` machines at once; return the outcomes in order."""
        from dorafleet.ssh.fanout import run_on_each

        await self.load()
        return await run_on_each(
            machines, self.enrol, parallel=parallel, on_outcome=self._reporter.outcome
        )

    async def enrol(self, machine: Machine) -> Enrolled:
        """Enrol a machine, after `load`. Raises SshError."""
        from dorad.control.errors import ControlError
        from dorafleet.robot.enrol import Enrolment, as_ssh_error
        from dorafleet.ssh.connection import connect

        async def sign(csr: str, again: bool) -> Certificates:
            return await asyncio.to_thread(_sign, self._client, machine.id, csr, again=again)

        async def is_connected() -> bool:
            return await asyncio.to_thread(_is_connected, self._client, machine.id)

        try:
            async with connect(machine, accept_new=self._accept_new) as robot:
                enrolment = Enrolment(
                    robot,
                    machine.id,
                    known=self._known.get(machine.id, "never"),
                    sign=sign,
                    is_connected=is_connected,
                    coordinators=self._coordinators,
                    on_step=lambda step: self._reporter.step(machine.id, step),
                    again=self._again,
                    exact=self._exact,
                    lost=self._lost,
                )
                return await enrolment.run()
        except ControlError as error:
            raise as_ssh_error(error) from error


def ask_known(client: Client) -> dict[str, Known]:
    """Return the robots that have been enrolled, by id. Raises ControlError."""
    from dorad.control.messages import Nothing
    from dorafleet.coordinator.accessmessages import ACCESS_LIST

    return {
        grant.name: "revoked" if grant.revoked else "enrolled"
        for grant in client.call(ACCESS_LIST, Nothing()).grants
        if grant.kind == "robot"
    }


def _sign(client: Client, robot: str, csr: str, *, again: bool) -> Certificates:
    from dorad.control.messages.enrolment import ENROL_SIGN, EnrolSign

    params = EnrolSign(robot=robot, csr=csr, again=again)
    return client.call(ENROL_SIGN, params)


def _is_connected(client: Client, id_: str) -> bool:
    from dorad.control.messages import Nothing
    from dorafleet.coordinator.messages import ROBOT_LIST

    listed = client.call(ROBOT_LIST, Nothing())
    return any(
        each.id == id_ and each.state in {"connected", "conflict-paused"} for each in listed.robots
    )


def print_token(client: Client, robot: str, coordinators: Sequence[str]) -> None:
    """Print a command to run on a robot, and a token for it. Raises ControlError."""
    from dorafleet.coordinator.accessmessages import ENROL_TOKEN, EnrolRef
    from dorafleet.robot.commands import ENABLE_AGENT

    known = ask_known(client).get(robot, "never")
    if known == "enrolled":
        raise click.ClickException(
            f"robot `{robot}` is enrolled already, and a token enrols only one that is not "
            f"(`dorafleet revoke {robot}` first)"
        )
    made = client.call(ENROL_TOKEN, EnrolRef(robot=robot))
    try:
        authority = base64.b64encode(ssl.PEM_cert_to_DER_cert(made.authority)).decode()
    except ValueError:
        raise ControlError("bad-request", "the coordinator sent no certificate") from None
    # The token is no argument: every user of the robot could read it there, and be faster.
    words = ["sudo", "dorad-agent", "join", *coordinators, "--robot", robot]
    words += ["--authority", authority]
    if known == "revoked":
        words.append("--replace")  # it still has the key that was revoked
    until = local_time(made.expires, "%H:%M")
    click.echo(f"Run this on {robot}, once and before {until}:", err=True)
    start = ("sudo", *ENABLE_AGENT)
    click.echo(visible(f"{shlex.join(words)} && {shlex.join(start)}"))
    click.echo("It asks for this token; paste it only there:", err=True)
    click.echo(visible(made.token))


def address_of(cluster: Cluster, port: int | None) -> str:
    """Return where robots find the coordinator of a cluster: `10.0.0.1:6013`."""
    from dorafleet.inventory.model import endpoint

    return endpoint(cluster.coordinator.addr, port or cluster.coordinator.port)
