"""`dorafleet completion`: print the completion script of a shell."""

import click

from dorad.commandline.shells import completion_command


def _root() -> tuple[click.Group, str]:
    from dorafleet.cli.main import COMPLETE_VARIABLE, cli

    return cli, COMPLETE_VARIABLE


completion = completion_command("dorafleet", _root)
