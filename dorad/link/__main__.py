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
from dorad.link.config import read_config
from dorad.node import attach


def main() -> int:
    """Serve; return the exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s: %(message)s")
    out = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not mix with reports

    def report(what: object) -> None:
        line = msgspec.json.encode(what) + b"\n"
        while line:
            line = line[os.write(out, line) :]

    try:
        config = read_config(0)
        read = None if config.tls is None else credentials.read(config.tls)
        confine()
        from dorad.link.process import LinkProcess  # after `confine`

        if LINK in os.environ:
            os.environ[attach.CONFIG] = attach.connected(sys.argv[1], int(os.environ.pop(LINK)))
        place = attach.decide(None, None, os.environ)
        assert isinstance(place, attach.Spawned | attach.Connected)
        LinkProcess(config, read, attach.connect(place), 0, report).run()
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
