"""`dora topic`: what passes over the outputs of a running dataflow."""

from typing import ClassVar

import click

from dorad.cli.groups import CommandEntry, LazyGroup

EPILOG = """\b
Examples:
  dora topic list
  dora topic hz camera/image --duration 5
  dora topic echo camera/image --count 1

A topic is written `node/output`. Nothing has to be switched on in the dataflow, and measuring
costs it nothing.
"""


class Topics(LazyGroup):
    """The commands about topics."""

    table: ClassVar[dict[str, CommandEntry]] = {
        "list": CommandEntry(
            "dorad.cli.topic_info:list_topics", "List outputs and who receives them."
        ),
        "echo": CommandEntry("dorad.cli.topic_echo:echo", "Show the messages that outputs send."),
        "hz": CommandEntry("dorad.cli.topic_hz:hz", "Measure how often outputs send."),
        "info": CommandEntry(
            "dorad.cli.topic_info:info", "Show type, rate and receivers of outputs."
        ),
        "pub": CommandEntry("dorad.cli.topic_pub:pub", "Send a message as if the node did."),
    }


@click.group("topic", cls=Topics, epilog=EPILOG)
def topic() -> None:
    """Look at what passes over outputs, or send there."""
