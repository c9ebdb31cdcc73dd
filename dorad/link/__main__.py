"""Entry point: `python -m dorad.link [ID]`. See `config` for what goes in and out.

The process attaches to the dataflow as the participant that DORA_NODE_CONFIG names, or as ID
through the connection that a helper inherits (see `launch.helper`). It ends when its standard input
ends, when the dataflow stops it, or with the daemon.
"""

from __future__ import annotations

import logging
import os
import sys

import msgspec

from dorad.launch.confine import confine
from dorad.launch.helper import LINK
from dorad.link import credentials
from dorad.link.config import Happened, Status, read_config
from dorad.node import attach


class Reports:
    """Writes reports as lines, and never waits: a status that finds no room is left out."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._rest = b""

    def __call__(self, what: Status | Happened) -> None:
        """Write a report, or as much of it as there is room for; the rest comes with the next."""
        self._flush()
        if not self._rest or isinstance(what, Happened):
            self._rest += msgspec.json.encode(what) + b"\n"
            self._flush()

    def _flush(self) -> None:
        while self._rest:
            try:
                self._rest = self._rest[os.write(self._descriptor, self._rest) :]
            except BlockingIOError:
                return


def main() -> int:
    """Serve; return the exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s: %(message)s")
    out = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not mix with reports

    try:
        config = read_config(0)
        read = None if config.tls is None else credentials.read(config.tls)
        confine()
        from dorad.link.process import LinkProcess  # after `confine`

        if LINK in os.environ:
            os.environ[attach.CONFIG] = attach.connected(sys.argv[1], int(os.environ.pop(LINK)))
        place = attach.decide(None, None, os.environ)
        assert isinstance(place, attach.Spawned | attach.Connected)
        LinkProcess(config, read, attach.connect(place), 0, Reports(out)).run()
    except ModuleNotFoundError as error:
        if error.name != "zenoh":
            raise
        sys.stderr.write("links need the package eclipse-zenoh: pip install 'dorad[link]'\n")
        return 1
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except BrokenPipeError:
        return 0  # nobody reads the reports any more
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Zenoh's threads may still wait for a machine that has stopped.
    os._exit(code)
