"""`dora completion`: print the completion script for a shell."""

import os
from pathlib import Path

import click

SHELLS = ("bash", "elvish", "fish", "powershell", "zsh")

EPILOG = """\b
Set it up once:
  bash        echo 'eval "$(dora completion bash)"' >> ~/.bashrc
  zsh         echo 'eval "$(dora completion zsh)"' >> ~/.zshrc    (after compinit)
  fish        dora completion fish > ~/.config/fish/completions/dora.fish
  elvish      echo 'eval (dora completion elvish | slurp)' >> ~/.config/elvish/rc.elv
  powershell  dora completion powershell >> $PROFILE
"""


@click.command(epilog=EPILOG)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def completion(shell: str | None) -> None:
    """Print the completion script for SHELL, by default for the shell in $SHELL."""
    from dorad.cli.commands import COMPLETE_VARIABLE
    from dorad.cli.root import cli

    print_script(shell, cli, "dora", COMPLETE_VARIABLE)


def print_script(
    shell: str | None, group: click.Group, program: str, complete_variable: str
) -> None:
    """Print a program's completion script. Raises click.UsageError for an unknown shell."""
    from dorad.cli.shells import CLASSES

    script = CLASSES[shell or _own_shell()](group, {}, program, complete_variable)
    # Not `source()`, which for bash starts a bash to check its version.
    click.echo(script.source_template % script.source_vars())


def _own_shell() -> str:
    name = Path(os.environ.get("SHELL", "")).name
    name = {"pwsh": "powershell"}.get(name, name)
    if name not in SHELLS:
        found = name or "not set"
        raise click.UsageError(f"$SHELL is {found}; name your shell: {', '.join(SHELLS)}")
    return name
