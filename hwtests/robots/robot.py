"""One robot: its disk and processes, and operations on it."""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
from pathlib import Path

from hwtests.robots import boot
from hwtests.robots.errors import RobotError
from hwtests.robots.host import cgroup2
from hwtests.robots.network import Network, address
from hwtests.robots.shell import attempt, run, wait_until

BOOT_S = 90.0
"""Deadline of a boot."""
ENVIRONMENT = (
    "/usr/bin/env",
    "-i",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
    "DEBIAN_FRONTEND=noninteractive",
)
JOIN = 'echo $$ >"$1"; shift; exec "$@"'
"""Go into the cgroup of the robot's PID 1, then run the rest."""


class Robot:
    """One robot of a test bed. Numbers start at 1."""

    def __init__(self, bed: str, number: int, lower: str, folder: Path, network: Network) -> None:
        self.number = number
        self.name = f"robot{number}"
        self.address = address(number)
        self._machine = f"{bed}-{number}"
        self._group = f"{bed}/{number}"
        self._lower = lower
        self._folder = folder
        self._network = network
        self._process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        """Create its disk, identity and cable; do not boot it."""
        for name in ("upper/etc", "work", "root"):
            (self._folder / name).mkdir(parents=True)
        etc = self._folder / "upper/etc"
        (etc / "machine-id").write_text(uuid.uuid4().hex + "\n")
        (etc / "hostname").write_text(self.name + "\n")
        hosts = [f"{address(number)} robot{number}" for number in range(1, 100)]
        names = ["127.0.0.1 localhost", f"{address(0)} fleet", *hosts]
        (etc / "hosts").write_text("\n".join(names) + "\n")
        self._network.plug(self.number)

    def switch_on(self) -> None:
        """Begin to boot; `wait_until_booted` waits for the end."""
        if self.running:
            raise RobotError(f"{self.name} is running")
        self._reap()
        # After cgroup.kill Linux kills every process that enters this cgroup: use a new one.
        boot.remove_cgroup(self._cgroup)
        network = f"--net=/run/netns/{self._network.namespace(self.number)}"
        command = ["nsenter", network, "unshare", "--mount", "--propagation=private"]
        command += [sys.executable, boot.__file__]
        command += [self._machine, self._group, self._lower, str(self._folder)]
        with self._console.open("ab") as console:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )

    def wait_until_booted(self) -> None:
        """Wait until systemd has finished booting. Raises RobotError if a unit has failed."""
        wait_until(self._booted, f"{self.name} is up, see {self._console}", timeout=BOOT_S)

    def start(self) -> None:
        """Boot with the disk as it is, and wait until it is up."""
        self.switch_on()
        self.wait_until_booted()

    def exec(self, *command: str, stdin: bytes = b"", timeout: float = 60) -> str:
        """Run a command inside as root and return what it printed.

        Raises:
            RobotError: it failed, it took longer, or the robot is off.
        """
        return run(self._entering(command), stdin=stdin, timeout=timeout)

    def attempt(self, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command inside as root; accept any exit code."""
        return attempt(self._entering(command), timeout=timeout)

    def sh(self, script: str, *, timeout: float = 60) -> str:
        """Run a shell script inside as root and return what it printed; as `exec` otherwise."""
        return self.exec("sh", "-euc", script, timeout=timeout)

    def push(self, source: Path, target: str) -> None:
        """Copy a file into the robot."""
        self.write(target, source.read_bytes())

    def write(self, target: str, data: bytes | str) -> None:
        """Write a file inside the robot; its folder is made."""
        raw = data.encode() if isinstance(data, str) else data
        script = 'mkdir -p "$(dirname "$1")" && cat >"$1"'
        self.exec("sh", "-euc", script, "sh", target, stdin=raw, timeout=120)

    def power_cut(self) -> None:
        """End every process of the robot at the same moment."""
        if self.running:
            (self._cgroup / "cgroup.kill").write_text("1")
            wait_until(lambda: not self.running, f"{self.name} is dead")
        self._reap()

    def power_off(self) -> None:
        """Shut down cleanly."""
        self.exec("systemctl", "poweroff")
        wait_until(lambda: not self.running, f"{self.name} is off", timeout=60)
        self._reap()

    def reboot(self) -> None:
        """Reboot from within, and wait until it is up again."""
        before = self.leader
        self.exec("systemctl", "reboot")
        wait_until(lambda: self.leader not in (before, None), f"{self.name} reboots", timeout=60)
        self.wait_until_booted()

    def destroy(self) -> None:
        """Cut its power and remove what is left of its processes; the test bed removes the disk."""
        self.power_cut()
        boot.remove_cgroup(self._cgroup)

    @property
    def running(self) -> bool:
        """True if it has processes."""
        events = self._cgroup / "cgroup.events"
        try:
            return "populated 1" in events.read_text()
        except OSError:
            return False

    @property
    def leader(self) -> int | None:
        """The pid of its PID 1 on this machine; None while it is off."""
        try:
            listed = (self._cgroup / "payload/init.scope/cgroup.procs").read_text().split()
            for pid in listed:
                status = Path("/proc", pid, "status").read_text()
                if re.search(r"^NSpid:\t\d+\t1$", status, re.MULTILINE):
                    return int(pid)
        except OSError:
            return None
        return None

    def _entering(self, command: tuple[str, ...]) -> list[str]:
        leader = self.leader
        if leader is None:
            raise RobotError(f"{self.name} is off")
        enter = ["nsenter", f"--target={leader}", "--all", "--wdns=/root", "--", *ENVIRONMENT]
        group = self._cgroup / "payload/init.scope/cgroup.procs"
        return ["sh", "-c", JOIN, "sh", str(group), *enter, *command]

    def _booted(self) -> bool:
        if self.leader is None:
            if self._process is not None and self._process.poll() is not None:
                raise RobotError(f"{self.name} did not start: {self._last_output()}")
            return False
        state = self.attempt("systemctl", "is-system-running", "--wait", timeout=BOOT_S)
        if "degraded" in state.stdout:
            failed = self.exec("systemctl", "--failed", "--plain", "--no-legend")
            raise RobotError(f"{self.name} came up, but units failed:\n{failed}")
        return state.stdout.strip() == "running"

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait(timeout=30)
            self._process = None

    def _last_output(self) -> str:
        return self._console.read_text(errors="replace")[-2000:]

    @property
    def _console(self) -> Path:
        return self._folder / "console.log"

    @property
    def _cgroup(self) -> Path:
        return cgroup2() / self._group
