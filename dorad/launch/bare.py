"""Starting a bare interpreter for the guard or the keeper."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def start_bare(code: str, fd: int, stderr: int | None = None) -> subprocess.Popen[bytes]:
    """Run `code` in a session of its own, with `fd` open: no site, no user code, few variables.

    Its stderr is ours, or `stderr`.

    Raises:
        OSError: there is no such interpreter any more, or no memory.
    """
    kept = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONHOME")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    env["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path if entry)
    return subprocess.Popen(
        [sys.executable, "-S", "-P", "-c", code],
        cwd="/",
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        pass_fds=(fd,),
        start_new_session=True,
    )
