"""Run a command, and print a dot for each two seconds in which it prints nothing."""

from __future__ import annotations

import os
import select
import subprocess
import sys

SILENCE_S = 2.0


def run(command: list[str]) -> int:
    """Run a command to its end; return its exit code."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        assert child.stdout is not None
        output, dots = child.stdout.fileno(), False
        while True:
            if not select.select([output], [], [], SILENCE_S)[0]:
                _print(b".")
                dots = True
                continue
            text = os.read(output, 1 << 16)
            if dots:
                _print(b"\n")
                dots = False
            if not text:
                break
            _print(text)
    return child.returncode


def _print(text: bytes) -> None:
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    try:
        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
