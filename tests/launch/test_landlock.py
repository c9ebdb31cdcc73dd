"""Processes that `landlock.separate` keeps from others of their user."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dorad.launch import landlock
from dorad.launch.enter import NOT_EXECUTED, wrap_command

VICTIM = "import sys; print('ready', flush=True); sys.stdin.read()"
ATTACK = """\
import ctypes, errno, json, os, signal, subprocess, sys
from pathlib import Path

def tried(action):
    try:
        return f"ok: {action()!r}"[:40]
    except OSError as error:
        return errno.errorcode[error.errno]

def trace():
    library = ctypes.CDLL(None, use_errno=True)
    if library.ptrace(16, pid, None, None) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(pid, 0)
    library.ptrace(17, pid, None, None)

def take():
    result = ctypes.CDLL(None, use_errno=True).syscall(438, os.pidfd_open(pid), 1, 0)
    if result < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")

child = None
pid = int(sys.argv[1])
if not pid:
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    pid = child.pid
proc = Path("/proc", str(pid))
outcome = {
    "environ": tried((proc / "environ").read_bytes),
    "memory": tried(lambda: (proc / "mem").open("rb").close()),
    "maps": tried((proc / "maps").read_bytes),
    "descriptors": tried(lambda: os.readlink(proc / "fd" / "1")),
    "trace": tried(trace),
    "take": tried(take),
    "signal": tried(lambda: os.kill(pid, signal.SIGCONT)),
}
if child is not None:
    child.communicate(b"\\n")
source, target = Path(sys.argv[2], "a", "file"), Path(sys.argv[2], "b", "file")
source.parent.mkdir(exist_ok=True)
target.parent.mkdir(exist_ok=True)
source.write_text("x")
outcome["move"] = tried(lambda: source.rename(target))
print(json.dumps(outcome))
"""
FORBIDDEN = {"EPERM", "EACCES"}
needs_landlock = pytest.mark.skipif(
    landlock.version() < landlock.READING, reason="this kernel has no Landlock of version 2"
)


def wrapped(*argv: str, separate: bool = True) -> list[str]:
    # As systemd does. Root with CAP_PERFMON could read all processes.
    bounding = ["--bounding-set=-all"] if os.geteuid() == 0 else []
    command = wrap_command(None, argv, separate=separate)
    return ["setpriv", "--no-new-privs", *bounding, *command]


@contextmanager
def victim() -> Iterator[int]:
    """A process of this user that is separated from others; its pid."""
    argv = wrapped(sys.executable, "-S", "-c", VICTIM)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        process.communicate(timeout=60)


def attack(pid: int, folder: Path, *, separate: bool) -> dict[str, str]:
    """Reach for a process (0: an own child), and move a file."""
    argv = wrapped(sys.executable, "-c", ATTACK, str(pid), str(folder), separate=separate)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return dict(json.loads(done.stdout))


@needs_landlock
def test_a_separated_process_reaches_no_other_one_of_its_user(tmp_path: Path) -> None:
    with victim() as pid:
        reached = attack(pid, tmp_path, separate=True)
        # Moving files between folders goes on.
        assert reached.pop("move").startswith("ok")
        signalled = reached.pop("signal")
        assert set(reached.values()) <= FORBIDDEN, reached
        if landlock.version() >= landlock.SIGNALS:
            assert signalled in FORBIDDEN


@needs_landlock
def test_without_the_separation_these_attacks_succeed(tmp_path: Path) -> None:
    with victim() as pid:
        reached = attack(pid, tmp_path, separate=False)
    assert [how for how in reached.values() if not how.startswith("ok")] == []


@needs_landlock
def test_a_separated_process_reaches_its_own_children(tmp_path: Path) -> None:
    reached = attack(0, tmp_path, separate=True)
    assert [how for how in reached.values() if not how.startswith("ok")] == []


def test_a_command_that_cannot_be_executed_is_named(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/no/such/interpreter\n", encoding="ascii")
    program.chmod(0o755)
    argv = wrapped(str(program))
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == NOT_EXECUTED
    assert f"cannot execute {program}: No such file or directory" in done.stderr
