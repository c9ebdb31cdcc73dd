"""Texts that are cut into the words of a command: `args` and the lines of `build`."""

from __future__ import annotations

from dorad.dataflow.errors import TextError


def split_args(text: str) -> tuple[str, ...]:
    """The words of `args`, cut as a shell cuts them; nothing is expanded. Raises TextError."""
    import shlex  # here, because a dataflow without args should not pay for it

    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        if "escaped" in str(error):
            raise TextError("ends with a backslash that escapes nothing", "write `\\\\`") from None
        quote = _open_quote(text)
        raise TextError(
            f"a quote {quote} is never closed", f"write `\\{quote}` for the character itself"
        ) from None


def build_commands(text: str) -> tuple[str, ...]:
    """The commands of `build`: its lines without the blank ones. Raises TextError."""
    commands = tuple(line.strip() for line in text.splitlines() if line.strip())
    for command in commands:
        split_command(no_nul(command))
    return commands


def no_nul(text: str) -> str:
    """The text, which can be an argument of a program. Raises TextError if it cannot."""
    if "\0" in text:
        raise TextError("contains a NUL character")
    return text


def split_command(command: str) -> tuple[str, ...]:
    """The argv of one `build` command, never empty: no shell runs it, quotes group words.

    dora knows only double quotes here; single quotes and backslashes work too, as in `args`.
    Raises TextError.
    """
    words = split_args(command)
    if not words or not words[0]:
        raise TextError(f"the build command `{command}` names no program")
    return words


def _open_quote(text: str) -> str:
    """The quote character that is left open at the end of `text`."""
    quote = ""
    characters = iter(text)
    for character in characters:
        if character == "\\" and quote != "'":
            next(characters, None)
        elif not quote and character in "'\"":
            quote = character
        elif character == quote:
            quote = ""
    return quote
