"""`dora topic`: show, measure and send messages of a running dataflow."""

from typing import ClassVar

import click

from dorad.cli.groups import CommandEntry, LazyGroup
from dorad.cli.instance import add_options

EPILOG = """\b
Examples:
  dora topic list
  dora topic hz camera/image --duration 5
  dora topic echo camera/image --count 1

A topic is written `node/output`. The dataflow needs no special setting, and measuring does not slow
it.
"""


class Topics(LazyGroup):
    """The commands of `dora topic`."""

    table: ClassVar[dict[str, CommandEntry]] = {
        "list": CommandEntry(
            "dorad.cli.topic_info:list_topics", "List outputs and their subscribers."
        ),
        "echo": CommandEntry("dorad.cli.topic_echo:echo", "Show the messages that outputs send."),
        "hz": CommandEntry("dorad.cli.topic_hz:hz", "Measure how often outputs send."),
        "info": CommandEntry(
            "dorad.cli.topic_info:info", "Show type, rate and subscribers of outputs."
        ),
        "pub": CommandEntry("dorad.cli.topic_pub:pub", "Send a message as if the node did."),
    }

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command `cmd_name`, and add the options that choose a server."""
        command = super().get_command(ctx, cmd_name)
        if command is not None and cmd_name in self.table:
            add_options(command)
        return command


@click.group("topic", cls=Topics, epilog=EPILOG)
def topic() -> None:
    """Show, measure and send messages of outputs."""
