"""How five shells ask `dora` for completions, and what each is answered.

The protocol is click's: the shell sets `_DORA_COMPLETE` and hands over its words; the answer is
one completion a line. zsh and fish use click's own scripts; bash has one of ours, so that no
space follows a directory; elvish and PowerShell are not known to click.
"""

import json
import os
from typing import ClassVar

from click.shell_completion import (
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

BASH = """\
%(complete_func)s() {
    local line IFS=$'\\n'
    COMPREPLY=()
    while IFS= read -r line; do
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
    """A shell that passes its words, the incomplete one last, as the lines of `_DORA_WORDS`."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the complete words and the incomplete one."""
        *words, incomplete = os.environ.get("_DORA_WORDS", "").split("\n")
        return words, incomplete


class BashComplete(LineComplete):
    """Values only; bash shows no help beside them."""

    name: ClassVar[str] = "bash"
    source_template: ClassVar[str] = BASH

    def format_completion(self, item: CompletionItem) -> str:
        """Return the value."""
        return str(item.value)


class ElvishComplete(LineComplete):
    """Value and help, with a tab between."""

    name: ClassVar[str] = "elvish"
    source_template: ClassVar[str] = ELVISH

    def format_completion(self, item: CompletionItem) -> str:
        """Return value, tab, help on one line."""
        return f"{item.value}\t{' '.join((item.help or '').split())}"


class PowerShellComplete(LineComplete):
    """Value and help as JSON; PowerShell refuses an empty help text."""

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


def register() -> None:
    """Make click answer all five shells."""
    for name, cls in CLASSES.items():
        add_completion_class(cls, name)
