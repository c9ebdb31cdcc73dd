"""A tap, as a process: `python -m dorad.daemon.tap.process PARENT echo|publish QUEUE_SIZE GUEST`.

It is a helper (see `launch.helper`) that gives up all rights before it imports what handles
messages. PARENT is the daemon's pid, or 0 where systemd is the parent.
"""

from __future__ import annotations

import sys

from dorad.launch.confine import confine
from dorad.launch.prctl import die_with_parent


def main() -> None:
    """Serve until there is nothing left to do."""
    parent, task, queue_size, observer_id = sys.argv[1:]
    confine()
    if int(parent):
        try:
            # After the change of user, which undoes it.
            die_with_parent(int(parent))
        except ProcessLookupError:
            return  # the daemon has been killed already
    from dorad.daemon.tap.tasks import serve  # only now

    serve(task, int(queue_size), observer_id)


if __name__ == "__main__":
    main()
