"""Split command lines into words: `args` and the lines of `build`."""

from __future__ import annotations

from dorad.dataflow.errors import TextError


def split_args(text: str) -> tuple[str, ...]:
    """Split `args` as a shell does, without expansion. Raises TextError."""
    import shlex  # here, because a dataflow without args does not need it

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
    """Return the commands of `build`: its lines without blank ones. Raises TextError."""
    commands = tuple(line.strip() for line in text.splitlines() if line.strip())
    for command in commands:
        split_command(no_nul(command))
    return commands


def no_nul(text: str) -> str:
    """Return the text unchanged. Raises TextError if it cannot be a program's argument."""
    if "\0" in text:
        raise TextError("contains a NUL character")
    return text


def split_command(command: str) -> tuple[str, ...]:
    """Return the argv of one `build` command, never empty; no shell runs it.

    dora accepts only double quotes here; single quotes and backslashes work too, as in `args`.
    Raises TextError.
    """
    words = split_args(command)
    if not words or not words[0]:
        raise TextError(f"the build command `{command}` names no program")
    return words


def _open_quote(text: str) -> str:
    """Return the quote character that is still open at the end of `text`."""
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
