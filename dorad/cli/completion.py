"""`dora completion`: print the completion script for a shell."""

import click

from dorad.commandline.shells import completion_command


def _root() -> tuple[click.Group, str]:
    from dorad.cli.commands import COMPLETE_VARIABLE
    from dorad.cli.root import cli

    return cli, COMPLETE_VARIABLE


completion = completion_command("dora", _root)
