"""`dorafleet install`: install the package dorad on machines and start its service."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from dorafleet.cli.arguments import (
    File,
    accept_new_option,
    file_argument,
    only_option,
    parallel_option,
    select_machines,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dorafleet.cli.reporting import Reporter
    from dorafleet.inventory.model import Machine
    from dorafleet.robot.install import Installed
    from dorafleet.robot.package import Package
    from dorafleet.ssh.fanout import Outcome

EPILOG = """\b
Examples:
  dorafleet install cluster.yml dist/dorad_0.1.0_arm64.deb
  dorafleet install cluster.yml dorad_0.1.0_arm64.deb --only arm1 --only arm2
  dorafleet install cluster.yml dorad_0.1.0_arm64.deb --parallel 2
\b
A machine that has this version, with the service active and enabled, is not changed. A failure on
one machine does not affect the others. Running dataflows continue during an upgrade.
The ssh user must be root, or able to sudo without a password.
Exit code 0: all machines have the package and their service answers. 1: some do not.
"""


@click.command(epilog=EPILOG)
@file_argument
@click.argument("package", type=File(".deb"))
@only_option
@parallel_option
@accept_new_option
@click.option("--allow-downgrade", is_flag=True, help="Also install an older version.")
def install(
    file: Path,
    package: Path,
    *,
    only: Sequence[str],
    parallel: int,
    accept_new: bool,
    allow_downgrade: bool,
) -> int:
    """Install the Debian package PACKAGE on the machines in FILE, and start dorad there."""
    from dorafleet.cli.reporting import Reporter, check_outcomes
    from dorafleet.inventory.load import load
    from dorafleet.robot.package import read_package

    machines = select_machines(load(file), only)
    found = read_package(package)
    with Reporter([machine.id for machine in machines], found.size) as reporter:
        installer = _Installer(found, reporter, accept_new=accept_new, downgrade=allow_downgrade)
        outcomes = asyncio.run(installer.run(machines, parallel))
    check_outcomes(outcomes)
    return 0


class _Installer:
    """Installs one package on all machines."""

    def __init__(
        self, package: Package, reporter: Reporter, *, accept_new: bool, downgrade: bool
    ) -> None:
        self._package = package
        self._reporter = reporter
        self._accept_new = accept_new
        self._downgrade = downgrade

    async def run(self, machines: Sequence[Machine], parallel: int) -> list[Outcome[Installed]]:
        """Install on up to `parallel` machines at once; return the outcomes in order."""
        from dorafleet.ssh.fanout import run_on_each

        return await run_on_each(
            machines, self._install, parallel=parallel, on_outcome=self._reporter.outcome
        )

    async def _install(self, machine: Machine) -> Installed:
        from dorafleet.robot.install import Installation
        from dorafleet.ssh.connection import connect

        async with connect(machine, accept_new=self._accept_new) as robot:
            installation = Installation(
                robot,
                self._package,
                on_step=lambda step: self._reporter.step(machine.id, step),
                on_sent=lambda count: self._reporter.sent(machine.id, count),
                downgrade=self._downgrade,
            )
            return await installation.run()
