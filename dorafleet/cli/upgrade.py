"""`dorafleet upgrade`: bring a new package dorad to machines, a few at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from dorad.commandline.durations import Duration
from dorafleet.cli.arguments import File, OverSsh, over_ssh

if TYPE_CHECKING:
    from pathlib import Path

    from dorafleet.inventory.model import Machine
    from dorafleet.robot.upgrade import Result
    from dorafleet.ssh.fanout import MachineOutcome

EPILOG = """\b
Examples:
  dorafleet upgrade cluster.yml dorad_0.2.0_arm64.deb
  dorafleet upgrade cluster.yml dorad_0.2.0_arm64.deb --canary 2 --max-parallel 10
  dorafleet upgrade cluster.yml dorad_0.2.0_arm64.deb --previous dorad_0.1.0_arm64.deb

\b
The canaries are upgraded first, alone. A machine is healthy if dorad answers, and every node that
ran before keeps its process for --min-healthy-time. Otherwise it reinstalls its previous package,
also without a connection. The first failure of a canary, or more failures than --failure-threshold,
end the upgrade; unreachable machines do not count.
Exit code 0: all machines have the package. 1: some do not.
"""


@click.command(epilog=EPILOG)
@over_ssh(parallel=None)
@click.argument("package", type=File(".deb"))
@click.option("--canary", metavar="N|N%", default="1", show_default=True, help="Come first.")
@click.option("--max-parallel", metavar="N|N%", default="10%", show_default=True, help="At a time.")
@click.option("--failure-threshold", metavar="N|N%", help="Accepted failures.  [10%, at least 2]")
@click.option(
    "--min-healthy-time",
    type=Duration(),
    default="30s",
    show_default=True,
    help="How long a machine must be healthy.",
)
@click.option(
    "--healthy-deadline",
    type=Duration(),
    default="5m",
    show_default=True,
    help="After this time a machine that is not healthy reinstalls its previous package.",
)
@click.option(
    "--previous",
    type=File(".deb"),
    help="The currently installed package, for machines that have not kept it.",
)
@click.option("--no-way-back", is_flag=True, help="Also machines without their present package.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each machine.")
def upgrade(
    over: OverSsh,
    package: Path,
    *,
    canary: str,
    max_parallel: str,
    failure_threshold: str | None,
    min_healthy_time: float,
    healthy_deadline: float,
    previous: Path | None,
    no_way_back: bool,
    as_json: bool,
) -> int:
    """Upgrade dorad to PACKAGE on the machines in FILE, a few at a time."""
    from dorad.control.messages.releases import HealthRules
    from dorafleet.cli.progress import Reporter
    from dorafleet.robot.batches import run_rolling
    from dorafleet.robot.package import read_package
    from dorafleet.robot.upgrade import Settings
    from dorafleet.robot.upgrade import upgrade as upgrade_robot
    from dorafleet.rollout.strategy import Strategy, problems
    from dorafleet.ssh.connection import connect

    strategy = Strategy(
        canary=canary,
        max_parallel=max_parallel,
        failure_threshold=failure_threshold,
        rules=HealthRules(min_healthy_time=min_healthy_time, healthy_deadline=healthy_deadline),
        progress_deadline=max(600.0, healthy_deadline),
    )
    if wrong := "; ".join(map(str, problems(strategy))):
        raise click.UsageError(wrong)
    machines = over.machines
    new = read_package(package)
    old = None if previous is None else read_package(previous)
    settings = Settings(min_healthy_time, healthy_deadline, no_way_back)
    with Reporter(over.ids, new.size, as_json=as_json) as reporter:

        async def work(machine: Machine) -> Result:
            async with connect(machine, accept_new=over.accept_new) as robot:
                return await upgrade_robot(
                    robot,
                    new,
                    old,
                    settings,
                    on_step=lambda step: reporter.step(machine.id, step),
                    on_sent=lambda count: reporter.sent(machine.id, count),
                )

        def report(outcome: MachineOutcome[Result]) -> None:
            machine = outcome.machine.id
            if outcome.result is not None and outcome.result.ok:
                reporter.done(machine, str(outcome.result))
            else:
                reporter.failed(machine, str(outcome.error or outcome.result))

        outcomes, stopped = asyncio.run(
            run_rolling(machines, work, lambda result: result.harmless, strategy, report)
        )
    done = [each for each in outcomes if each.result is not None and each.result.ok]
    if len(done) == len(machines):
        return 0
    without = len(machines) - len(done)
    why = f"; the upgrade has ended: {stopped}" if stopped else ""
    raise click.ClickException(f"{without} of {len(machines)} machines do not have it{why}")
