"""`dorafleet provision`: bring robots that are new, or were installed again, to their state."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import click

from dorad.control.errors import ControlError
from dorad.terminal import visible
from dorafleet.cli.arguments import (
    File,
    accept_new_option,
    file_argument,
    file_port_option,
    machine_ids,
    parallel_option,
    select_machines,
    state_option,
)
from dorafleet.cli.coordinator import check_known, connect, list_robots
from dorafleet.cli.enrol import Enroller, address_of
from dorafleet.cli.progress import Reporter
from dorafleet.cli.releaseoptions import open_store, store_option
from dorafleet.cli.releasetrust import signer_line, trust_key
from dorafleet.ssh.errors import Code, SshError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from dorad.control.client import Client
    from dorad.control.messages.releases import ReleaseState
    from dorafleet.inventory.model import Machine
    from dorafleet.release.signingkey import SigningKey
    from dorafleet.release.store import Bundle, Store
    from dorafleet.robot.package import Package
    from dorafleet.rollout.messages import DriftRow
    from dorafleet.ssh.fanout import MachineOutcome

T = TypeVar("T")

SETTLED_S = 600.0
"""Seconds that a robot has to start what it shall run."""
POLL_S = 1.0

EPILOG = """\b
Examples:
  dorafleet provision cluster.yml arm1 --package dorad_0.1.0_arm64.deb --accept-new
  dorafleet provision cluster.yml arm1 --key bob.pub
\b
For a robot that was installed again, or whose disk or computer was replaced: it gets everything
that the fleet knows of it. The command installs the package, enrols the robot with a new key, lets
it trust the keys that have signed its releases, sends the releases, and waits until it runs what it
shall run. What it has already is not changed, so the command can be repeated.
The keys are those of your SSH agent, and those that --key names; a release that another key has
signed is not sent. Releases come from your own store: run it where they were built.
An image that was made anew has a new host key: remove the old one with `ssh-keygen -R HOST`.
Exit code 0: the robots are in their desired state. 1: some are not; what is missing is named.
"""


@click.command(epilog=EPILOG)
@file_argument
@click.argument("machine", nargs=-1, required=True, shell_complete=machine_ids)
@click.option("--package", type=File(".deb"), help="Install this Debian package of dorad.")
@click.option(
    "--key",
    "keys",
    multiple=True,
    help="Also trust this key: a file, or a fingerprint or comment of a key of the SSH agent.",
)
@store_option
@file_port_option
@state_option
@parallel_option
@accept_new_option
def provision(
    file: Path,
    machine: Sequence[str],
    *,
    package: Path | None,
    keys: Sequence[str],
    store: Path | None,
    port: int | None,
    state: Path,
    parallel: int,
    accept_new: bool,
) -> int:
    """Bring MACHINE to its desired state after it was installed again: one command for all steps.

    It installs, enrols, trusts keys, sends releases, and waits.
    """
    from dorafleet.cli.progress import check_outcomes
    from dorafleet.inventory.load import load
    from dorafleet.robot.package import read_package

    cluster = load(file)
    machines = select_machines(cluster, machine)
    debian = None if package is None else read_package(package)
    with connect(state, port or cluster.coordinator.port) as client:
        check_known(client, machines)
        wanted = {each.id: _releases(client, each.id, open_store(store)) for each in machines}
        bundles = [bundle for each in wanted.values() for bundle in each]
        signers = _signers(bundles, keys)
        size = 0 if debian is None else debian.size
        with Reporter([each.id for each in machines], size) as reporter:
            places = (address_of(cluster, port),)
            enroller = Enroller(client, places, reporter, accept_new=accept_new, lost=True)
            work = _Provisioner(
                client,
                reporter,
                enroller,
                open_store(store),
                debian,
                wanted,
                signers,
                accept_new=accept_new,
            )
            outcomes = asyncio.run(work.run(machines, parallel))
    check_outcomes(outcomes, "are not in their desired state")
    return 0


@dataclass(frozen=True, slots=True)
class Provisioned:
    """What a robot has got."""

    releases: int
    dataflows: int

    def __str__(self) -> str:
        releases = "1 release" if self.releases == 1 else f"{self.releases} releases"
        return f"in its desired state, with {releases}, {self.dataflows} running dataflows"


def _releases(client: Client, robot: str, store: Store) -> list[Bundle]:
    """Return the releases that a robot shall run, from this machine's store.

    Raises:
        BuildError: the store lacks one, or a part of it.
    """
    from dorafleet.coordinator.messages import DESIRED_GET, DesiredRef

    wanted = client.call(DESIRED_GET, DesiredRef(robot=robot)).desired
    ids = sorted({each.release for each in wanted if each.release})
    bundles = [store.find(id_) for id_ in ids]
    for bundle in bundles:
        store.check(bundle)
    return bundles


def _signers(bundles: Sequence[Bundle], names: Sequence[str]) -> dict[str, SigningKey]:
    """Return the keys that robots get, by fingerprint: those that have signed, and the named ones.

    Raises:
        BuildError: a release is signed with a key that is neither in the SSH agent nor named.
    """
    from dorad.release.signature import signing_key
    from dorafleet.release.errors import BuildError
    from dorafleet.release.signingkey import agent_keys, choose

    named = {key.fingerprint: key for key in (choose(name, public=True) for name in names)}
    own = {key.fingerprint: key for key in agent_keys()}
    signers = dict(named)
    for bundle in bundles:
        fingerprint = signing_key(bundle.content, bundle.signature).get_fingerprint()
        key = named.get(fingerprint) or own.get(fingerprint)
        if key is None:
            message = f"release {bundle} is signed with {fingerprint}, which is none of your keys"
            raise BuildError(message, "if robots shall trust it, name its file with --key")
        signers[fingerprint] = key
    return signers


class _Provisioner:
    """Brings robots to their desired state."""

    def __init__(
        self,
        client: Client,
        reporter: Reporter,
        enroller: Enroller,
        store: Store,
        package: Package | None,
        releases: Mapping[str, Sequence[Bundle]],
        signers: Mapping[str, SigningKey],
        *,
        accept_new: bool,
    ) -> None:
        self._client = client
        self._reporter = reporter
        self._enroller = enroller
        self._store = store
        self._package = package
        self._releases = releases
        self._signers = signers
        self._accept_new = accept_new

    async def run(
        self, machines: Sequence[Machine], parallel: int
    ) -> list[MachineOutcome[Provisioned]]:
        """Do it on up to `parallel` robots at once; return the outcomes in order."""
        from dorafleet.ssh.fanout import run_on_each

        await self._enroller.load()
        return await run_on_each(
            machines, self._provision, parallel=parallel, on_outcome=self._reporter.outcome
        )

    async def _provision(self, machine: Machine) -> Provisioned:
        def step(name: str) -> None:
            self._reporter.step(machine.id, name)

        if self._package is not None:
            await self._install(machine, self._package)
        await self._enroller.enrol(machine)
        for key in self._signers.values():
            step(f"trusting the key {key}")
            await trust_key(machine, signer_line(key), accept_new=self._accept_new)
        for bundle in self._releases[machine.id]:
            step(f"sending release {bundle}")
            await self._send(machine, bundle)
        step("waiting until it runs what it shall run")
        await self._wait(machine.id)
        robot = next(each for each in await self._ask(list_robots) if each.id == machine.id)
        running = [each for each in robot.shares if each.status == "running"]
        return Provisioned(len(self._releases[machine.id]), len(running))

    async def _install(self, machine: Machine, package: Package) -> None:
        from dorafleet.robot.install import Installation
        from dorafleet.ssh.connection import connect as connect_ssh

        async with connect_ssh(machine, accept_new=self._accept_new) as robot:
            await Installation(
                robot,
                package,
                on_step=lambda name: self._reporter.step(machine.id, name),
                on_sent=lambda count: self._reporter.sent(machine.id, count),
            ).run()

    async def _send(self, machine: Machine, bundle: Bundle) -> None:
        from dorafleet.release.transfer import TransferOptions, send

        options = TransferOptions(accept_new=self._accept_new)
        (outcome,) = await send([machine], bundle, self._store, options=options)
        if outcome.error is not None:
            raise outcome.error

    async def _wait(self, robot: str) -> None:
        """Wait until a robot does not differ from its desired state. Raises SshError."""
        end = time.monotonic() + SETTLED_S
        while True:
            rows = await self._ask(lambda client: _drift(client, robot))
            if not rows:
                return
            robot_now = next(each for each in await self._ask(list_robots) if each.id == robot)
            if time.monotonic() >= end or any(map(_has_failed, robot_now.releases)):
                row = rows[0]
                message = f"{row.dataflow or row.what}: it shall have {row.desired}, and has "
                raise SshError(Code.FAILED, message + visible(row.found), row.way_back)
            await asyncio.sleep(POLL_S)

    async def _ask(self, question: Callable[[Client], T]) -> T:
        try:
            return await asyncio.to_thread(question, self._client)
        except ControlError as error:
            raise SshError(Code.FAILED, error.message, error.hint) from error


def _has_failed(release: ReleaseState) -> bool:
    """Return True if a robot does not come to a release by itself any more."""
    return release.refused or release.phase in ("reverted", "stuck")


def _drift(client: Client, robot: str) -> list[DriftRow]:
    from dorad.control.messages import Nothing
    from dorafleet.rollout.messages import DRIFT_LIST

    rows = client.call(DRIFT_LIST, Nothing()).rows
    return [row for row in rows if row.robot == robot and row.what != "package"]
