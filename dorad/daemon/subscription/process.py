"""Entry point: `python -m dorad.daemon.subscription.process PARENT TASK QUEUE_SIZE ID REDUCE`.

The process is a helper (see `launch.helper`). It gives up all privileges before it imports code
that handles messages. PARENT is the daemon's pid, or 0 if systemd is the parent; ID is the
observer's. REDUCE says how to make messages smaller, see `reducing`.
"""

import sys

from dorad.launch.confine import confine
from dorad.launch.prctl import die_with_parent


def main() -> None:
    """Confine this process, then serve until the subscription ends."""
    parent, task, queue_size, observer_id, reduce = sys.argv[1:]
    confine()
    if int(parent):
        try:
            # After the change of user, which would reset it.
            die_with_parent(int(parent))
        except ProcessLookupError:
            return  # the daemon was killed already
    from dorad.daemon.subscription.tasks import serve  # after `confine`

    serve(task, int(queue_size), observer_id, reduce)


if __name__ == "__main__":
    main()
