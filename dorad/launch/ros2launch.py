"""A node that runs `ros2 launch …` and owns all processes that it starts.

    python -m dorad.launch.ros2launch launch PACKAGE FILE

The node's process takes part in the dataflow; its child, the keeper, starts `ros2` and adopts what
that leaves. Whichever of the three is killed, no process of them remains:

| killed | |
|---|---|
| the node's process | the kernel sends SIGTERM to the keeper, which kills the rest |
| the keeper | the node's process adopts the rest and kills it |
| `ros2` | the keeper adopts the rest and kills it, and the node ends with the same exit code |
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dorad.dataflow.model import ROS2
from dorad.launch.descendants import end_descendants
from dorad.launch.prctl import die_with_parent, set_subreaper
from dorad.ros2.environment import SetupError, choose, enter

POLL_S = 0.2
"""How late the node sees that the keeper has ended, in seconds."""

_SIGNALS = frozenset((signal.SIGCHLD, signal.SIGINT, signal.SIGTERM))

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Run `ros2` with these arguments until it ends, or the dataflow stops; return its exit code.

    If it has been killed, the code is 128 and the signal's number, as in a shell.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s: %(message)s")
    try:
        program, variables = find_ros2(os.environ)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    set_subreaper(True)
    node_process = os.getpid()
    # Before pyarrow is imported: this process has one thread, and the keeper stays small.
    keeper = os.fork()
    if keeper == 0:
        os._exit(_keep([program, *arguments], variables, node_process))
    return _follow(keeper)


def find_ros2(environ: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return the `ros2` on PATH, else that of the installation, and its variables.

    Raises:
        SetupError: there is none.
    """
    variables = dict(environ)
    program = shutil.which(ROS2, path=variables.get("PATH"))
    if program is None:
        variables = dict(enter(choose(None, Path.cwd(), environ), environ).variables)
        program = shutil.which(ROS2, path=variables.get("PATH"))
    if program is None:
        raise SetupError("there is no command `ros2` (apt install ros-DISTRO-ros2launch)")
    variables.pop("DORA_NODE_CONFIG", None)  # what it starts is not this node
    return program, variables


def _follow(keeper: int) -> int:
    """Take part in the dataflow until the keeper has ended; return the exit code."""
    from dorad.node.node import Node

    try:
        node = Node()
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        end_descendants(lambda pid, status: None)
        return 1
    stopping = False
    while True:
        pid, status = os.waitpid(keeper, 0 if stopping else os.WNOHANG)
        if pid:
            break
        event = node.next(POLL_S)
        if event is None or event["type"] == "STOP":
            _log.debug("the dataflow stops: SIGINT to ros2")
            stopping = True
            os.kill(keeper, signal.SIGINT)
    if os.WIFSIGNALED(status):
        left: list[int] = []
        end_descendants(lambda pid, status: left.append(pid))
        print(f"error: the parent of `ros2` was killed; ended {len(left)} more", file=sys.stderr)
    code = _exit_code(status)
    # As after Ctrl-C, which is how it was asked to stop.
    return 0 if stopping and code == 128 + signal.SIGINT else code


def _keep(argv: Sequence[str], variables: Mapping[str, str], node_process: int) -> int:
    """Run a command to its end and kill what it leaves; return its exit code.

    SIGINT is for the command, SIGTERM kills everything.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    os.setsid()  # whoever reaps the node's process kills its group
    try:
        set_subreaper(True)
        die_with_parent(node_process, signal.SIGTERM)
        # In a session of its own, so that Ctrl-C reaches all that belongs to it, and it alone.
        command = os.posix_spawn(argv[0], list(argv), variables, setsid=True, setsigmask=())
    except OSError as error:
        print(f"error: {argv[0]} cannot be started: {error.strerror}", file=sys.stderr)
        return 1
    codes: list[int] = []

    def reaped(pid: int, status: int) -> None:
        if pid == command:
            codes.append(_exit_code(status))

    while not codes:
        number = signal.sigwait(_SIGNALS)
        if number == signal.SIGTERM:
            break
        if number == signal.SIGINT:
            os.killpg(command, signal.SIGINT)
        else:
            _reap(reaped)
    end_descendants(reaped)
    return codes[0]


def _reap(reaped: Callable[[int, int], None]) -> None:
    """Reap the children that have ended, and call `reaped` with each and its wait status."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        reaped(pid, status)


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
