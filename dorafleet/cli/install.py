"""`dorafleet install`: install the package dorad on machines and start its service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dorafleet.cli.arguments import File, OverSsh, over_ssh

if TYPE_CHECKING:
    from pathlib import Path

    from dorafleet.inventory.model import Machine
    from dorafleet.robot.install import Installed

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
    from dorafleet.cli.progress import Reporter, check_outcomes
    from dorafleet.robot.install import Installation
    from dorafleet.robot.package import read_package
    from dorafleet.ssh.connection import connect

    debian = read_package(package)
    with Reporter(over.ids, debian.size) as reporter:

        async def install_on(machine: Machine) -> Installed:
            async with connect(machine, accept_new=over.accept_new) as robot:
                return await Installation(
                    robot,
                    debian,
                    on_step=lambda step: reporter.step(machine.id, step),
                    on_sent=lambda count: reporter.sent(machine.id, count),
                    downgrade=allow_downgrade,
                ).run()

        outcomes = over.run(install_on, reporter.outcome)
    check_outcomes(outcomes)
    return 0
