"""The commands that dorafleet runs on robots, as lists of words."""

from collections.abc import Sequence

UNIT = "dorad.service"
SOCKET = "/run/dorad/control.sock"
"""The service's socket, not that of a daemon that the ssh user may have started by hand."""
LOCK_TIMEOUT_S = 120
"""How long apt-get waits for another apt-get."""

ENGLISH = ("env", "LC_ALL=C.UTF-8")
"""Prefix of commands whose messages are parsed or shown."""

USER_ID = ("id", "-u")
ARCHITECTURE = ("dpkg", "--print-architecture")
VERSION = ("dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", "dorad")
ACTIVE = ("systemctl", "is-active", UNIT)
ENABLED = ("systemctl", "is-enabled", UNIT)
MAY_SUDO = ("sudo", "-n", "true")
ENABLE = ("systemctl", "enable", "--now", UNIT)
MAKE_FOLDER = ("mktemp", "--directory", "/var/tmp/dorafleet.XXXXXXXXXX")

INSTALL = (
    'cd "$1" && apt-get -q -y -o "DPkg::Lock::Timeout=$3" -o Dpkg::Options::=--force-confold '
    '$5 install "./$2"; code=$?; [ $code != 0 ] || { mkdir -p -m 700 "$4" && '
    'cp "$2" "$4/current.part" && sync "$4/current.part" && mv "$4/current.part" "$4/current.deb"; '
    '} || echo "$2 cannot be kept in $4: the next upgrade needs --previous" >&2; '
    'cd / && rm -rf "$1"; exit $code'
)
"""Shell: install the package $2 in the folder $1, keep it in $4 for the way back of the next
upgrade, and remove the folder in any case."""

KEPT = "/var/lib/dorad-upgrade"
"""Where a robot keeps its packages."""

AGENT_UNIT = "dorad-agent.service"
DISABLE_AGENT = ("systemctl", "disable", "--now", AGENT_UNIT)
REMOVE_SECRETS = ("rm", "-rf", "/var/lib/dorad-agent/secrets", "/run/dorad-agent/secrets")
ENABLE_AGENT = ("systemctl", "enable", "--now", AGENT_UNIT)
AGENT_IDENTITY = ("cat", "/var/lib/dorad-agent/identity/agent.json")


def agent(command: str, *words: str, replace: bool) -> tuple[str, ...]:
    """Return a command of `dorad-agent` that enrols the robot."""
    return (*ENGLISH, "dorad-agent", command, *words, *(("--replace",) if replace else ()))


def agent_move(coordinators: Sequence[str]) -> tuple[str, ...]:
    """Return the command that tells the robot's agent other addresses of its coordinators."""
    return (*ENGLISH, "dorad-agent", "move", "--", *coordinators)


def agent_release(command: str, *words: str) -> tuple[str, ...]:
    """Return a command of `dorad-agent release`."""
    return (*ENGLISH, "dorad-agent", "release", command, *words)


def dora(*words: str) -> tuple[str, ...]:
    """Return a `dora` command that talks to the robot's service."""
    return (*ENGLISH, f"DORA_SOCKET={SOCKET}", "dora", *words)


DAEMON = dora("status", "--format", "json")
DATAFLOWS = dora("list", "--status", "running", "--format", "json")


def install(folder: str, name: str, unit: str, *, downgrade: bool) -> tuple[str, ...]:
    """Return the command that installs the package `folder`/`name`.

    It runs as a systemd unit that prints to the journal, so that a lost connection does not end
    dpkg halfway.
    """
    command = ["systemd-run", "--quiet", "--wait", "--collect", f"--unit={unit}"]
    command += ["--setenv=DEBIAN_FRONTEND=noninteractive", "--setenv=LC_ALL=C.UTF-8"]
    option = "--allow-downgrades" if downgrade else ""
    words = (folder, name, str(LOCK_TIMEOUT_S), KEPT, option)
    return (*command, "sh", "-c", INSTALL, "sh", *words)


SYNC = ("journalctl", "--sync")
"""Wait until the journal contains everything printed so far."""


def journal(unit: str) -> tuple[str, ...]:
    """Return the command that prints the last lines of a unit."""
    return ("journalctl", f"--unit={unit}", "--output=cat", "--lines=30", "--no-pager")


def remove(folder: str) -> tuple[str, ...]:
    """Return the command that removes a folder created by MAKE_FOLDER."""
    return ("rm", "-rf", "--", folder)


def as_root(command: Sequence[str], uid: int) -> tuple[str, ...]:
    """Return the command, with sudo unless the user is root."""
    return tuple(command) if uid == 0 else ("sudo", "-n", *command)


def upgrade(folder: str, unit: str, previous: str, settings: str) -> tuple[str, ...]:
    """Return the command that upgrades dorad with the files in `folder`, and prints the result.

    It runs as its own unit, so that a lost connection does not end it.
    """
    return (
        *("systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={unit}"),
        *("/usr/bin/python3", "-I", f"{folder}/upgrade.py", "upgrade", KEPT, f"{folder}/new.deb"),
        *(previous, settings),
    )
