"""Robots to try things on: `python -m hwtests.robots [COUNT]`, as root.

Boots containers as robots and opens a shell in their network, from which SSH reaches them with the
user's own key. When the shell ends, the robots are removed, and so is what the shell has started.

Under sudo the shell belongs to the user who called it.
"""

from __future__ import annotations

import argparse
import os
import pwd
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hwtests.robots import RobotError, Testbed, host, rootfs
from hwtests.robots.network import FLEET, address
from hwtests.robots.shell import attempt, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parents[2]
MAX_ROBOTS = 20
END_S = 15.0
HELP = """\
This shell is in the network of the robots, at {desk}. SSH reaches them as root. $DIST has the
packages of `make deb`. `exit` removes the robots, and fleets and releases that you make here.
"""


def main() -> int:
    """Boot robots, and stay until the shell ends; return 1 if that is impossible here."""
    arguments = argparse.ArgumentParser(prog="python -m hwtests.robots", description=__doc__)
    arguments.add_argument("count", nargs="?", type=int, default=5, help="how many robots")
    count = arguments.parse_args().count
    if not 0 < count <= MAX_ROBOTS:
        arguments.error(f"there can be 1 to {MAX_ROBOTS} robots, not {count}")
    user = pwd.getpwnam(os.environ.get("SUDO_USER") or "root")
    home = Path(user.pw_dir if "SUDO_USER" in os.environ else Path.home())
    keys = [each.read_text() for each in sorted((home / ".ssh").glob("id_*.pub"))]
    if reason := host.missing():
        print(reason, file=sys.stderr)
        return 1
    if not keys:
        print(f"{home}/.ssh has no key to log in with; make one: ssh-keygen", file=sys.stderr)
        return 1
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, lambda *_: sys.exit(1))
    try:
        print("Making the file system of the robots, if it is not there yet (a minute)", flush=True)
        with Testbed(include=rootfs.WITH_SSH) as bed:
            print(f"Booting {count} robots: Debian 13 in containers", flush=True)
            for robot in bed.up(count):
                robot.write("/root/.ssh/authorized_keys", "".join(keys))
                print(f"  {robot.name}  root@{robot.address}", flush=True)
            print(HELP.format(desk=address(FLEET)), end="", flush=True)
            run_shell(bed, user, home)
    except RobotError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def run_shell(bed: Testbed, user: pwd.struct_passwd, home: Path) -> None:
    """Run the user's shell in the network of the robots; end all that it leaves there."""
    namespace = bed.network.namespace(FLEET)
    state = host.FOLDER / "beds" / bed.name / "desk"
    state.mkdir()
    os.chown(state, user.pw_uid, user.pw_gid)
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("SUDO_", "MAKE"))
    }
    shell = os.environ.get("SHELL") or "/bin/sh"
    env = {
        "DIST": str(PROJECT / "dist"),
        **kept,
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        "HOME": str(home),
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
        # A fleet of these robots ends with them.
        "XDG_STATE_HOME": str(state / "state"),
        "XDG_DATA_HOME": str(state / "share"),
    }
    command = ["nsenter", f"--net=/run/netns/{namespace}"]
    if user.pw_uid:
        identity = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups")
        command += ["setpriv", *identity]
    # Ctrl-C is for the shell and its commands. A handler, unlike SIG_IGN, is not inherited.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        subprocess.run([*command, shell], env=env, check=False)
    finally:
        signal.signal(signal.SIGINT, before)
        end_processes(namespace)


def end_processes(namespace: str) -> None:
    """End every process in a network namespace."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in processes(namespace):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        with suppress(RobotError):
            wait_until(lambda: not [*processes(namespace)], "they have ended", timeout=END_S)
            return


def processes(namespace: str) -> Iterator[int]:
    """Yield the processes in a network namespace."""
    yield from map(int, attempt(["ip", "netns", "pids", namespace]).stdout.split())


if __name__ == "__main__":
    sys.exit(main())
