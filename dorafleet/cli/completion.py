"""`dorafleet completion`: print the completion script of a shell."""

import click

from dorad.cli.completion import SHELLS, print_script

EPILOG = """\b
Set it up, once (the Debian package does it for bash, fish and zsh):
  bash        echo 'eval "$(dorafleet completion bash)"' >> ~/.bashrc
  zsh         echo 'eval "$(dorafleet completion zsh)"' >> ~/.zshrc    (after compinit)
  fish        dorafleet completion fish > ~/.config/fish/completions/dorafleet.fish
  elvish      echo 'eval (dorafleet completion elvish | slurp)' >> ~/.config/elvish/rc.elv
  powershell  dorafleet completion powershell >> $PROFILE
"""


@click.command(epilog=EPILOG)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def completion(shell: str | None) -> None:
    """Print the completion script of SHELL, or of the shell in $SHELL."""
    from dorafleet.cli.main import COMPLETE_VARIABLE, cli

    print_script(shell, cli, "dorafleet", COMPLETE_VARIABLE)
