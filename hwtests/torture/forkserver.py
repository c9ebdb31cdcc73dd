"""The process that forks nodes: it has imported everything, so a node starts at once.

It listens on a socket pair. JSON packets ask it to start and signal processes; it reports starts
and ends. Only it sends signals, because it reaps the processes: their pids are not reused before.
"""

import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from pathlib import Path

from dorad.node.inputs import load_decoder
from hwtests.torture.node import TortureNode
from hwtests.torture.spec import ProcessSpec

PR_SET_PDEATHSIG = 1
PACKET = 1 << 16


def serve(channel: socket.socket) -> None:
    """Start and signal processes on request; kill them all when the other end closes."""
    children: set[int] = set()
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write)
    while True:
        ready, _, _ = select.select([channel.fileno(), wake_read], [], [])
        if wake_read in ready:
            os.read(wake_read, PACKET)
            _reap(channel, children)
        if channel.fileno() in ready:
            packet = channel.recv(PACKET)
            if not packet:
                break
            request = json.loads(packet)
            if "start" in request:
                spec = ProcessSpec.from_json(request["start"])
                pid = _fork(spec, channel)
                children.add(pid)
                _send(channel, {"started": spec.node, "pid": pid})
            elif request["pid"] in children:
                os.kill(request["pid"], request["signal"])
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    for pid in children:
        os.waitpid(pid, 0)


def _reap(channel: socket.socket, children: set[int]) -> None:
    for pid in list(children):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            children.discard(pid)
            _send(channel, {"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def _send(channel: socket.socket, packet: dict[str, object]) -> None:
    channel.send(json.dumps(packet).encode())


def _fork(spec: ProcessSpec, channel: socket.socket) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        channel.close()
        errors = os.open(
            Path(spec.folder) / f"{spec.node}.err", os.O_WRONLY | os.O_APPEND | os.O_CREAT
        )
        os.dup2(errors, 1)
        os.dup2(errors, 2)
        os.environ["DORA_NODE_CONFIG"] = spec.config
        TortureNode(spec).run()
        code = 0
    except BaseException:  # noqa: BLE001 - nothing may return into the parent's code
        traceback.print_exc()
    finally:
        os._exit(code)


def main() -> None:
    """Serve on the descriptor named by the first argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    load_decoder()
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        serve(channel)


if __name__ == "__main__":
    main()
