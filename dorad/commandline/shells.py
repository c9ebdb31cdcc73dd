"""Completion for five shells: the scripts that call `dora`, and the format of its answers.

The protocol is click's: the shell sets `_DORA_COMPLETE` and passes its words; the answer has one
completion per line. zsh and fish use click's scripts. bash has its own script here, so that no
space follows a directory, and blanks in paths are quoted. elvish and PowerShell have theirs because
click does not support them.
"""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import click
from click.shell_completion import (
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

from dorad.commandline.files import path_items

BASH = """\
%(complete_func)s() {
    local line IFS=$'\\n'
    COMPREPLY=()
    while IFS= read -r line; do
        if [[ $line == *$'\\t' ]]; then
            compopt -o filenames
            line=${line%%$'\\t'} line=${line%%/}
        fi
        [[ $line == */ ]] && compopt -o nospace
        [[ -n $line ]] && COMPREPLY+=("$line")
    done < <(env _DORA_WORDS="${COMP_WORDS[*]:1:COMP_CWORD}" \\
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

ELVISH = """\
set edit:completion:arg-completer[%(prog_name)s] = {|@words|
  use str
  tmp E:%(complete_var)s = elvish_complete
  tmp E:_DORA_WORDS = (str:join "\\n" $words[1..])
  %(prog_name)s 2>/dev/null | from-lines | each {|line|
    if (not-eq $line '') {
      var value help = (str:split &max=2 "\\t" $line)
      var after = ' '
      if (str:has-suffix $value /) { set after = '' }
      edit:complex-candidate $value &code-suffix=$after ^
        &display=(if (eq $help '') { put $value } else { put $value' ('$help')' })
    }
  }
}
"""

POWERSHELL = """\
Register-ArgumentCompleter -Native -CommandName %(prog_name)s -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @($commandAst.CommandElements | Select-Object -Skip 1 |
        Where-Object { $_.Extent.EndOffset -lt $cursorPosition } |
        ForEach-Object { $_.Extent.Text })
    $env:%(complete_var)s = 'powershell_complete'
    $env:_DORA_WORDS = (@($words) + @($wordToComplete)) -join "`n"
    try {
        & %(prog_name)s 2>$null | Where-Object { $_ } | ForEach-Object {
            $item = $_ | ConvertFrom-Json
            [System.Management.Automation.CompletionResult]::new(
                $item.value, $item.value, 'ParameterValue', $item.help)
        }
    } finally {
        Remove-Item Env:%(complete_var)s, Env:_DORA_WORDS -ErrorAction SilentlyContinue
    }
}
"""


class LineComplete(ShellComplete):
    """A shell that passes its words as lines of `_DORA_WORDS`, the incomplete word last."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the complete words and the incomplete one."""
        *words, incomplete = os.environ.get("_DORA_WORDS", "").split("\n")
        return words, incomplete

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """Return the completions; these shells do not find files by themselves."""
        items: list[CompletionItem] = []
        for item in super().get_completions(args, incomplete):
            if item.type not in ("file", "dir"):
                items.append(item)
                continue
            paths = path_items(str(item.value))
            items += [p for p in paths if item.type == "file" or p.value.endswith("/")]
        return items


class BashComplete(LineComplete):
    """Completion for bash: values only, because bash shows no help texts.

    A tab follows a path. Words come as they were typed, with their quotes.
    """

    name: ClassVar[str] = "bash"
    source_template: ClassVar[str] = BASH

    def format_completion(self, item: CompletionItem) -> str:
        """Return the value, with a tab after a path."""
        return f"{item.value}\t" if item.path else str(item.value)

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words without their quotes."""
        words, incomplete = super().get_completion_args()
        return [_unquoted(word) for word in words], _unquoted(incomplete)


def _unquoted(word: str) -> str:
    """Return a word of bash without its quotes, of which the last one may not be typed yet."""
    if word[:1] in ("'", '"'):
        return word[1:].removesuffix(word[0])
    return re.sub(r"\\(.)", r"\1", word)


class ElvishComplete(LineComplete):
    """Completion for elvish: value and help, separated by a tab."""

    name: ClassVar[str] = "elvish"
    source_template: ClassVar[str] = ELVISH

    def format_completion(self, item: CompletionItem) -> str:
        """Return value, tab and help on one line."""
        return f"{item.value}\t{' '.join((item.help or '').split())}"


class PowerShellComplete(LineComplete):
    """Completion for PowerShell: value and help as JSON. The help text must not be empty."""

    name: ClassVar[str] = "powershell"
    source_template: ClassVar[str] = POWERSHELL

    def format_completion(self, item: CompletionItem) -> str:
        """Return one JSON object on one line."""
        return json.dumps({"value": item.value, "help": item.help or item.value})


CLASSES: dict[str, type[ShellComplete]] = {
    "bash": BashComplete,
    "zsh": ZshComplete,
    "fish": FishComplete,
    "elvish": ElvishComplete,
    "powershell": PowerShellComplete,
}


SHELLS = tuple(sorted(CLASSES))


def register() -> None:
    """Register the shells with click."""
    for name, cls in CLASSES.items():
        add_completion_class(cls, name)


def completion_command(program: str, root: Callable[[], tuple[click.Group, str]]) -> click.Command:
    """Return the command that prints a program's completion script.

    `root` returns the program's group and its variable for completion.
    """
    setup = f"""\b
Set it up, once (the Debian package does it for bash, fish and zsh):
  bash        echo 'eval "$({program} completion bash)"' >> ~/.bashrc
  zsh         echo 'eval "$({program} completion zsh)"' >> ~/.zshrc    (after compinit)
  fish        {program} completion fish > ~/.config/fish/completions/{program}.fish
  elvish      echo 'eval ({program} completion elvish | slurp)' >> ~/.config/elvish/rc.elv
  powershell  {program} completion powershell >> $PROFILE
"""

    @click.command(epilog=setup)
    @click.argument("shell", type=click.Choice(SHELLS), required=False)
    def completion(shell: str | None) -> None:
        """Print the completion script for SHELL, by default for the shell in $SHELL."""
        group, variable = root()
        script = CLASSES[shell or _own_shell()](group, {}, program, variable)
        # Not `source()`, which for bash starts a bash to check its version.
        click.echo(script.source_template % script.source_vars())

    return completion


def _own_shell() -> str:
    name = Path(os.environ.get("SHELL", "")).name
    name = {"pwsh": "powershell"}.get(name, name)
    if name not in SHELLS:
        named = name or "not set"
        raise click.UsageError(f"$SHELL is {named}; name your shell: {', '.join(SHELLS)}")
    return name
