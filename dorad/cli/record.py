"""`dora record`: the commands about recordings. Without the name of one, it records."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import click

from dorad.commandline.files import SUFFIXES, path_items
from dorad.commandline.groups import CommandEntry, LazyGroup

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

EPILOG = """\b
Examples:
  dora record dataflow.yml                        run the dataflow and record everything
  dora record dataflow.yml --topics camera/image -o day.mcap
  dora record --attach demo --duration 60s        record a running dataflow
  dora record --attach demo --exclude camera/image --split 5m
  dora record ring --attach demo --keep 60s       a black box; `dora record mark` keeps its content
  dora record info day.mcap
  dora record recover day.mcap                    after a crash

\b
A recording is an MCAP file, which rerun and Foxglove open. The recorder is one more subscriber: it
slows no node down. If it is too slow, it drops messages, and counts and reports them; then the
recording is INCOMPLETE and the exit code 1. `dora replay` sends the messages again.
"""

_START = "start"


class RecordGroup(LazyGroup):
    """The commands of `dora record`; other arguments are those of `start`."""

    table: ClassVar[dict[str, CommandEntry]] = {
        _START: CommandEntry(
            "dorad.cli.record_start:start", "Record messages (the default).", server=True
        ),
        "info": CommandEntry("dorad.cli.record_info:info", "Show what a recording contains."),
        "list": CommandEntry("dorad.cli.record_info:list_files", "List recordings in a folder."),
        "recover": CommandEntry(
            "dorad.cli.record_info:recover", "Repair a recording after a crash."
        ),
        "cut": CommandEntry("dorad.cli.record_edit:cut", "Copy a part of a recording."),
        "merge": CommandEntry("dorad.cli.record_edit:merge", "Make one recording of several."),
        "export": CommandEntry(
            "dorad.cli.record_edit:export", "Write Parquet, Arrow, CSV or rerun files."
        ),
        "ring": CommandEntry(
            "dorad.cli.record_ring:ring",
            "Record into a black box: keep only the last seconds.",
            server=True,
        ),
        "stop": CommandEntry(
            "dorad.cli.record_attach:stop", "End the recordings of a running dataflow.", server=True
        ),
        "mark": CommandEntry(
            "dorad.cli.record_box:mark", "Keep what the black box has recorded.", server=True
        ),
        "incidents": CommandEntry(
            "dorad.cli.record_box:incidents", "List, export and remove incidents.", server=True
        ),
    }

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `start` before arguments that do not begin with the name of a command."""
        known = (*self.table, "help", "-h", "--help")
        if args and args[0] not in known:
            args = [_START, *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of `start`, then the commands."""
        start = self.get_command(ctx, _START)
        assert start is not None
        start.format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the arguments as the usage line shows them."""
        del ctx
        return ["[OPTIONS] [PATH]"]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the name of a command, a dataflow file, or an option of `start`."""
        if incomplete.startswith("-"):
            start = self.get_command(ctx, _START)
            assert start is not None
            return start.shell_complete(ctx, incomplete)
        files = path_items(incomplete, SUFFIXES)
        return [*super().shell_complete(ctx, incomplete), *files]


@click.group("record", cls=RecordGroup, epilog=EPILOG)
def record() -> None:
    """Record the messages of a dataflow: of PATH, which it runs, or of one that runs already."""
