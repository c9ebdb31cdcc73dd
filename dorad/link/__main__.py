"""Entry point of the link process: `python -m dorad.link`, started by the daemon as a node.

It attaches as the node that DORA_NODE_CONFIG names, and gets its configuration with the welcome. It
ends when the dataflow stops it, or with the daemon.
"""

import logging
import os
import sys

from dorad.heap import keep_freed
from dorad.launch.confine import confine
from dorad.launch.prctl import hide_memory
from dorad.link.config import decode
from dorad.node import attach, protocol

_log = logging.getLogger(__package__)

KEPT_BYTES = 64 << 20

MAX_FILES = 4096
"""Descriptors: `MAX_MACHINES` connections, and those of strangers that are not closed yet."""


def main() -> int:
    """Serve; return the exit code."""
    keep_freed(KEPT_BYTES)
    # The default format, from which the daemon reads the level.
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    try:
        place = attach.decide(None, None, os.environ)
        if not isinstance(place, attach.Spawned | attach.Connected):
            raise RuntimeError(f"only dorad can start a link process: {protocol.CONFIG} is not set")
        # Before `confine`, because the daemon admits the user that it has started.
        connection = attach.connect(place)
        config = decode(connection.config.get("link"))
        confine(MAX_FILES)
        hide_memory()  # after the change of user, which would reset it
        from dorad.link.process import LinkProcess  # after `confine`
        from dorad.link.reporting import report_ended
        from dorad.link.settings import RUNTIME

        os.environ["ZENOH_RUNTIME"] = RUNTIME
        try:
            LinkProcess(config, connection).run()
        except RuntimeError as error:
            connection.note(str(error))  # `dora node info` shows it
            report_ended(connection, config, str(error))
            raise
        connection.done()
    except ModuleNotFoundError as error:
        if error.name != "zenoh":
            raise
        _log.error("links need the package eclipse-zenoh: pip install 'dorad[link]'")
        return 1
    except RuntimeError as error:
        _log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Zenoh's threads may still wait for a machine that has stopped.
    os._exit(code)
