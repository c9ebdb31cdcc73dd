"""`dorafleet exec`: run a command on many machines, and group their outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dorad.commandline.durations import Duration
from dorad.commandline.tables import print_lines
from dorad.terminal import visible, visible_lines
from dorafleet.cli.arguments import OverSsh, over_ssh

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dorafleet.inventory.model import Machine
    from dorafleet.ssh.connection import CommandResult
    from dorafleet.ssh.fanout import MachineOutcome

EPILOG = """\b
Examples:
  dorafleet exec cluster.yml -- uname -r
  dorafleet exec cluster.yml --only arm1,arm2 -- df -h /
  dorafleet exec cluster.yml --shell -- 'journalctl -u dorad -n 5 | grep error'
  dorafleet exec cluster.yml --json -- uptime | jq -r 'select(.code != 0) | .machine'
\b
Machines with the same exit code and the same output are shown once, the largest group first. The
words of the command are passed on as they are; --shell gives them to the shell of the ssh user.
A command that is not done in time, or at Ctrl-C, gets SIGTERM there.
Exit code 0: it was 0 on all machines. 1: it was not, or some could not be reached.
"""


@click.command("exec", epilog=EPILOG, context_settings={"ignore_unknown_options": True})
@over_ssh()
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--shell", is_flag=True, help="Let the shell there read the command.")
@click.option(
    "--timeout", type=Duration(0.1), default="30s", show_default=True, help="For each machine."
)
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each machine.")
def exec_(
    over: OverSsh, command: Sequence[str], *, shell: bool, timeout: float, as_json: bool
) -> int:
    """Run COMMAND on the machines in FILE over SSH."""
    from dorafleet.ssh.connection import connect

    words = ["sh", "-c", " ".join(command)] if shell else list(command)
    outcomes: list[MachineOutcome[CommandResult]] = []

    async def run(machine: Machine) -> CommandResult:
        async with connect(machine, accept_new=over.accept_new) as robot:
            return await robot.run(words, timeout=timeout, doing="the command")

    try:
        outcomes = over.run(run, outcomes.append)
    except KeyboardInterrupt:
        _print(outcomes, as_json=as_json)
        done = {each.machine.id for each in outcomes}
        missing = ", ".join(each for each in over.ids if each not in done)
        click.echo(visible(f"not done: {missing}"), err=True)
        raise
    _print(outcomes, as_json=as_json)
    return 0 if all(each.result is not None and not each.result.code for each in outcomes) else 1


def _print(outcomes: Sequence[MachineOutcome[CommandResult]], *, as_json: bool) -> None:
    if as_json:
        print_lines(map(as_plain, outcomes))
    else:
        for line in group_lines(outcomes):
            click.echo(line)


def group_lines(outcomes: Iterable[MachineOutcome[CommandResult]]) -> list[str]:
    """Return the outcomes, those that are equal once; the largest group first."""
    groups: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        if outcome.result is None:
            key = (f"{outcome.error}", "")
        else:
            text = "\n".join(filter(None, (outcome.result.stdout, outcome.result.stderr)))
            key = (f"exit code {outcome.result.code}", text.rstrip("\n"))
        groups.setdefault(key, []).append(outcome.machine.id)
    lines = []
    for (head, text), machines in sorted(groups.items(), key=lambda each: -len(each[1])):
        good = head == "exit code 0"
        count = "" if len(machines) == 1 else f"{len(machines)} machines, "
        mark = click.style("✓" if good else "✗", fg="green" if good else "red")
        lines.append(f"{mark} {visible(', '.join(machines))}: {count}{visible(head)}")
        if text:
            lines.append(f"  {visible_lines(text, '  ')}")
    return lines


def as_plain(outcome: MachineOutcome[CommandResult]) -> dict[str, Any]:
    """Return a machine's object for `--json`; all have the same keys."""
    error, result = outcome.error, outcome.result
    return {
        "machine": outcome.machine.id,
        "code": None if result is None else result.code,
        "stdout": "" if result is None else result.stdout,
        "stderr": "" if result is None else result.stderr,
        "error": error and {"code": error.code, "message": error.message, "hint": error.hint},
    }
