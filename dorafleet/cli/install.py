"""`dorafleet install`: install the package dorad on machines and start its service."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from dorafleet.cli.arguments import File, over_ssh

if TYPE_CHECKING:
    from pathlib import Path

    from dorafleet.cli.arguments import OverSsh
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
@over_ssh()
@click.argument("package", type=File(".deb"))
@click.option("--allow-downgrade", is_flag=True, help="Also install an older version.")
def install(over: OverSsh, package: Path, *, allow_downgrade: bool) -> int:
    """Install the Debian package PACKAGE on the machines in FILE, and start dorad there."""
    from dorafleet.cli.reporting import Reporter, check_outcomes
    from dorafleet.robot.package import read_package

    found = read_package(package)
    with Reporter(over.ids, found.size) as reporter:
        installer = _Installer(found, reporter, over, downgrade=allow_downgrade)
        outcomes = asyncio.run(installer.run())
    check_outcomes(outcomes)
    return 0


class _Installer:
    """Installs one package on all machines."""

    def __init__(
        self, package: Package, reporter: Reporter, over: OverSsh, *, downgrade: bool
    ) -> None:
        self._package = package
        self._reporter = reporter
        self._over = over
        self._downgrade = downgrade

    async def run(self) -> list[Outcome[Installed]]:
        """Install on all machines; return the outcomes in order."""
        from dorafleet.ssh.fanout import run_on_each

        return await run_on_each(
            self._over.machines,
            self._install,
            parallel=self._over.parallel,
            on_outcome=self._reporter.outcome,
        )

    async def _install(self, machine: Machine) -> Installed:
        from dorafleet.robot.install import Installation
        from dorafleet.ssh.connection import connect

        async with connect(machine, accept_new=self._over.accept_new) as robot:
            installation = Installation(
                robot,
                self._package,
                on_step=lambda step: self._reporter.step(machine.id, step),
                on_sent=lambda count: self._reporter.sent(machine.id, count),
                downgrade=self._downgrade,
            )
            return await installation.run()
