"""The standard streams of a command, in whatever state its caller leaves them."""

import os
import sys


def open_standard_streams() -> None:
    """Open /dev/null for each standard stream that the caller has closed, as `dora list >&-` does.

    Python has None in its place, and the next file or socket would get its descriptor.

    Characters that a terminal of another encoding than UTF-8 lacks are written as `\\u2717`.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    if sys.stdout.encoding.lower() not in ("utf-8", "ascii"):  # click replaces an ASCII stream
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def abandon_stdout() -> None:
    """Redirect stdout to /dev/null, so that the interpreter's last flush does not fail, too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
