"""A thread without which its process is of no use."""

import os
import sys
import threading
import traceback
from collections.abc import Callable


def vital_thread(work: Callable[..., object], *args: object, name: str) -> threading.Thread:
    """Return a thread that runs `work`; any exception in it ends the process with code 1.

    Without that the others would wait for it for good.
    """

    def run() -> None:
        try:
            work(*args)
        except BaseException:  # noqa: BLE001 - the process ends
            print(f"thread {name!r} has failed, and its process ends:", file=sys.stderr)
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)

    return threading.Thread(target=run, name=name, daemon=True)
