"""Try to reach the processes of another dataflow, as a compromised node would; print what works.

The file $TARGET names a process, and a folder, of the other dataflow. $LEFT_OUT names attacks that
are not tried, in a list.
"""

import ctypes
import errno
import json
import os
import resource
import signal
import socket
from pathlib import Path

from dora import Node

from dorad.node.protocol import VERSION

LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH = 16
PTRACE_SEIZE = 0x4206
PIDFD_GETFD = 438
KCMP = {"x86_64": 312, "aarch64": 272}[os.uname().machine]
PROCESS_VM_READV = {"x86_64": 310, "aarch64": 270}[os.uname().machine]


def attempt(action: object) -> str:
    try:
        result = action()  # type: ignore[operator]
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return f"ok: {result!r}"[:60]


def call(number: int, *arguments: object) -> int:
    result = LIBC.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "syscall")
    return int(result)


def ptrace(pid: int, request: int) -> int:
    result = LIBC.ptrace(request, pid, None, None)
    if result < 0:
        raise OSError(ctypes.get_errno(), "ptrace")
    return int(result)


def take_descriptor(pid: int) -> int:
    return call(PIDFD_GETFD, os.pidfd_open(pid), 1, 0)


def shared_memory(pid: int) -> list[str]:
    """Open every descriptor of the process for writing, among them its mailbox and its pools."""
    folder = f"/proc/{pid}/fd"
    opened = []
    for each in Path(folder).iterdir():
        os.close(os.open(each, os.O_RDWR))
        opened.append(each.name)
    return opened


def hello(node: str, own: str) -> str:
    """Attach as a node of the other dataflow; raise EACCES as the answer "refused" does."""
    (path,) = [each for each in Path("/run/dorad").glob("*-d*.sock") if own not in each.name]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(str(path))
        packet = {"t": "hello", "node": node, "dynamic": False, "pid": 1, "version": VERSION}
        sock.send(json.dumps(packet).encode())
        answer = sock.recv(65536)
    if not answer or json.loads(answer).get("error"):
        raise PermissionError(errno.EACCES, "refused")
    return repr(answer[:40])


def attack(pid: int, folder: str, own: str) -> dict[str, str]:
    attacks = {
        "environ": Path(f"/proc/{pid}/environ").read_bytes,
        "command line": Path(f"/proc/{pid}/cmdline").read_bytes,
        "memory": lambda: os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR)),
        "maps": Path(f"/proc/{pid}/maps").read_bytes,
        "folder": lambda: list(Path(f"/proc/{pid}/cwd").iterdir()),
        "shared memory": lambda: shared_memory(pid),
        "ptrace": lambda: ptrace(pid, PTRACE_ATTACH),
        "seize": lambda: ptrace(pid, PTRACE_SEIZE),
        "read": lambda: call(PROCESS_VM_READV, pid, None, 0, None, 0, 0),
        "compare": lambda: call(KCMP, pid, os.getpid(), 1, 0, 0),
        "descriptor": lambda: take_descriptor(pid),
        "limits": lambda: resource.prlimit(pid, resource.RLIMIT_CPU, (1, 1)),
        "cores": lambda: os.sched_setaffinity(pid, {0}),
        "priority": lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
        "hello": lambda: hello("victim", own),
        "dynamic": lambda: hello("guest", own),
        "state": lambda: list(Path(folder).iterdir()),
        "other state": lambda: Path(folder, "..", "mine").mkdir(),
        "stop": lambda: os.kill(pid, signal.SIGSTOP),
        "kill": lambda: os.kill(pid, signal.SIGKILL),
        "kill by descriptor": lambda: signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGKILL),
    }
    left_out = os.environ.get("LEFT_OUT", "").split(",")
    return {what: attempt(how) for what, how in attacks.items() if what not in left_out}


node = Node()
Path(os.environ["STATE_DIRECTORY"], "mine").write_text("mine", encoding="ascii")
for event in node:
    target = Path(os.environ["TARGET"])
    if event["type"] == "INPUT" and target.exists():
        text, place = target.read_text(encoding="utf-8").split()
        print("attacked", json.dumps(attack(int(text), place, node.dataflow_id()[:8])))
        break
