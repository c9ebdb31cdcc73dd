"""`dora topic`: show, measure and send messages of a running dataflow."""

from typing import ClassVar

import click

from dorad.commandline.groups import CommandEntry, LazyGroup

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
            "dorad.cli.topic_info:list_topics", "List outputs and their subscribers.", server=True
        ),
        "echo": CommandEntry(
            "dorad.cli.topic_echo:echo", "Show the messages that outputs send.", server=True
        ),
        "hz": CommandEntry("dorad.cli.topic_hz:hz", "Measure how often outputs send.", server=True),
        "info": CommandEntry(
            "dorad.cli.topic_info:info", "Show type, rate and subscribers of outputs.", server=True
        ),
        "pub": CommandEntry(
            "dorad.cli.topic_pub:pub", "Send a message as if the node did.", server=True
        ),
    }


@click.group("topic", cls=Topics, epilog=EPILOG)
def topic() -> None:
    """Show, measure and send messages of outputs."""
