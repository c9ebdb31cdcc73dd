"""Write the manual pages of all programs from their own help: `manpages.py FOLDER`."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dorad import __version__
from dorad.agent.main import command as robot
from dorad.cli.root import cli
from dorad.daemon.main import command as daemon
from dorad.telemetry.main import command as exporter
from dorafleet.cli.main import cli as fleet
from dorafleet.telemetry.main import command as fleet_exporter

if TYPE_CHECKING:
    from collections.abc import Iterator


def main() -> None:
    """Write the pages into the folder in the first argument; create the folder."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    dora = page("dora", 1, cli, "build and run dataflows", "dorad(8)")
    (folder / "dora.1").write_text(dora)
    service = page("dorad", 8, daemon, "supervise dataflows", "dora(1), systemctl(1)")
    (folder / "dorad.8").write_text(service)
    agent = page("dorad-agent", 8, robot, "follow the coordinator of a fleet", "dorad(8)")
    (folder / "dorad-agent.8").write_text(agent)
    telemetry = page("dorad-telemetry", 8, exporter, "send metrics and logs", "dorad(8)")
    (folder / "dorad-telemetry.8").write_text(telemetry)
    manager = page("dorafleet", 1, fleet, "manage many robots over SSH", "dora(1), ssh(1)")
    (folder / "dorafleet.1").write_text(manager)
    metrics = page(
        "dorafleet-telemetry", 8, fleet_exporter, "send metrics of a fleet", "dorafleet(1)"
    )
    (folder / "dorafleet-telemetry.8").write_text(metrics)


def page(name: str, section: int, command: click.Command, what: str, also: str) -> str:
    """Return one manual page in roff's man macros."""
    built = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC)
    lines = [f'.TH {name.upper()} {section} "{built:%Y-%m-%d}" "dorad {__version__}"']
    lines += [".SH NAME", f"{name} \\- {text(what)}"]
    context = click.Context(command, info_name=name)
    lines += [".SH SYNOPSIS", *usage(context)]
    lines += [".SH DESCRIPTION", *described(context)]
    lines += [".SH OPTIONS", *options(context)]
    commands = list(subcommands(context))
    if commands:
        lines.append(".SH COMMANDS")
        for child in commands:
            lines += [f".SS {text(child.command_path)}", *usage(child), ".PP"]
            lines += [*described(child), *options(child)]
    lines += [".SH EXIT STATUS", "0 on success, 1 on an error, 2 on wrong usage."]
    lines += [".SH SEE ALSO", text(also)]
    return "\n".join(lines) + "\n"


def subcommands(context: click.Context) -> Iterator[click.Context]:
    """Yield a context for every visible subcommand, in the order of the help."""
    group = context.command
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            child = click.Context(command, info_name=name, parent=context)
            yield child
            yield from subcommands(child)


def usage(context: click.Context) -> list[str]:
    """Return the synopsis of the command."""
    words = context.command.collect_usage_pieces(context)
    return [f"\\fB{text(context.command_path)}\\fR {text(' '.join(words))}"]


def described(context: click.Context) -> list[str]:
    """Return the command's help and its examples."""
    lines: list[str] = []
    for block in (context.command.help, context.command.epilog):
        for part in (block or "").replace("\f", "").strip().split("\n\n"):
            verbatim = part.lstrip().startswith("\b")
            rows = [row.strip("\b") for row in part.splitlines() if row.strip("\b")]
            if verbatim:
                lines += [".PP", ".nf", *map(text, rows), ".fi"]
            else:
                lines += [".PP", *(text(row.strip()) for row in rows)]
    return lines[1:] if lines else lines


def options(context: click.Context) -> list[str]:
    """Return a list of the options, each with its help."""
    lines: list[str] = []
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            lines += [".TP", f"\\fB{text(record[0])}\\fR", text(record[1])]
    return lines


def text(words: str) -> str:
    """Escape the words, so that roff finds neither a macro nor an escape."""
    escaped = words.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    escaped = escaped.replace("^", "\\(ha").replace("~", "\\(ti").replace("`", "\\(ga")
    return "\\&" + escaped if escaped.startswith(".") else escaped


if __name__ == "__main__":
    main()
