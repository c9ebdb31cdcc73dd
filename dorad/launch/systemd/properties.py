"""The properties of the units of nodes and helpers, as plain values."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dorad.launch.enter import wrap_command
from dorad.launch.systemd import hardening
from dorad.realtime.memory import CAP_IPC_LOCK
from dorad.realtime.refusal import CAP_SYS_NICE
from dorad.realtime.schedule import SCHED_DEADLINE, Schedule

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from dorad.dataflow.settings import Resources
    from dorad.launch.model import Command, Identity
    from dorad.launch.systemd.hardening import Properties

SLICE = "dorad.slice"
STOP_TIMEOUT_S = 10
"""From SIGTERM to SIGKILL when a unit is stopped by hand, or the machine is shut down."""
TAG = "DORA_TAG"
"""The journal field with the tag of a unit's process."""

_INFINITY = 2**64 - 1
_OWN = re.compile(
    r"NOTIFY_SOCKET|FDSTORE|LISTEN_\w+|WATCHDOG_\w+|INVOCATION_ID|JOURNAL_STREAM|SYSTEMD_EXEC_PID"
    r"|MANAGERPID\w*|MAINPID|MEMORY_PRESSURE_\w+|CREDENTIALS_DIRECTORY"
    r"|(RUNTIME|STATE|CACHE|LOGS|CONFIGURATION)_DIRECTORY"
)
"""Variables by which systemd tells a service about itself."""
_USERS = ("HOME", "USER", "LOGNAME", "SHELL")

_HELPER = "helper/"


def properties(
    command: Command,
    tag: str,
    *,
    environment_file: str,
    own_unit: str = "",
    cores: Collection[int] = (),
) -> Properties:
    """Return the properties of the unit for `command`, without its descriptors.

    Every user can read them, so the node's variables are in `environment_file` instead (see
    `envfile`). `own_unit` is the daemon's unit; `cores` are those of `cpu_affinity` that are
    online.
    """
    dataflow_id, node, _ = [*tag.split("/", 2), "", ""][:3]
    flow = command.dataflow_name or dataflow_id
    # A unit has no property for the policy `deadline`, and none that separates its processes from
    # others of its user.
    separate = command.sandbox and not hardening.is_root(command.identity.user)
    argv = wrap_command(command.schedule, command.argv, separate=separate)
    settings: Properties = [
        ("Description", "s", f"Node {node} of dataflow {flow}"),
        ("Slice", "s", SLICE),
        ("Type", "s", "exec"),
        ("ExecStartEx", "a(sasas)", [[argv[0], argv, ["no-env-expand"]]]),
        ("WorkingDirectory", "s", os.fspath(command.cwd)),
        ("EnvironmentFiles", "a(sb)", [[environment_file, False]]),
        ("KillMode", "s", "control-group"),
        ("TimeoutStopUSec", "t", STOP_TIMEOUT_S * 1_000_000),
        # Keep the exit status of a unit that ends while no daemon runs.
        ("RemainAfterExit", "b", True),
        ("CollectMode", "s", "inactive"),
        ("OOMPolicy", "s", "kill"),
        ("IgnoreSIGPIPE", "b", False),
        ("LogExtraFields", "aay", _fields(command.dataflow_name, dataflow_id, node, tag)),
    ]
    if own_unit:
        # At shutdown systemd stops the daemon first, which stops its dataflows in order.
        settings.append(("Before", "as", [own_unit]))
    settings += _identity(command.identity)
    if cores:
        settings.append(("CPUAffinity", "ay", _mask(cores)))
    if command.schedule is not None:
        settings += _schedule(command.schedule)
    if command.sandbox:
        settings += hardening.of_node(command.identity.user, _capabilities(command.schedule))
    if command.resources is not None:
        settings += _resources(command.resources)
    if command.secrets:
        # systemd copies the files into memory that only this unit's user can read. It mounts only
        # a unit's own into its name space.
        files = [[name, os.fspath(path)] for name, path in command.secrets.items()]
        settings.append(("LoadCredential", "a(ss)", files))
    return settings


def helper_properties(
    command: Command, tag: str, environ: Mapping[str, str], own_unit: str, *, network: bool = False
) -> Properties:
    """Return the properties of the unit of a helper, without its descriptors.

    Every user can read `environ`, its environment. It ends with the daemon's unit, `own_unit`.
    """
    dataflow_id, name, *_ = [*tag.split("/"), ""]
    argv = list(command.argv)
    code_in_home = sys.prefix.startswith(("/home/", "/root/", "/run/user/"))
    return [
        ("Description", "s", f"Helper {name} of dataflow {command.dataflow_name or dataflow_id}"),
        ("Slice", "s", SLICE),
        ("Type", "s", "exec"),
        ("ExecStartEx", "a(sasas)", [[argv[0], argv, ["no-env-expand"]]]),
        ("WorkingDirectory", "s", os.fspath(command.cwd)),
        ("Environment", "as", [f"{key}={value}" for key, value in environ.items()]),
        ("CollectMode", "s", "inactive-or-failed"),
        ("KillSignal", "i", int(signal.SIGKILL)),
        ("BindsTo", "as", [own_unit]),
        ("After", "as", [own_unit]),
        ("LogExtraFields", "aay", _fields("", dataflow_id, name, f"{_HELPER}{tag}")),
        *hardening.of_helper(code_in_home=code_in_home, network=network),
    ]


def is_helper(tag: str) -> bool:
    """Return True if a unit with this tag is a helper, not a node."""
    return tag.startswith(_HELPER)


def environment(command: Command, own: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that the node's process gets from the daemon.

    Leaves out those with which systemd describes the daemon's service. For a node with a `user` it
    also leaves out HOME, USER and the like if their values are the daemon's, as in `own`.
    """
    left = {name: value for name, value in command.env.items() if not _OWN.fullmatch(name)}
    if command.identity.user:
        for name in _USERS:
            if name in left and left[name] == own.get(name):
                del left[name]
    return left


def without(properties: Properties, prefix: str) -> Properties:
    """Return the properties, except those whose names begin with `prefix`."""
    return [each for each in properties if not each[0].startswith(prefix)]


def usable(cores: Collection[int]) -> tuple[int, ...]:
    """Return those of the cores that are online."""
    online = _numbers(Path("/sys/devices/system/cpu/online").read_text(encoding="ascii"))
    return tuple(core for core in cores if core in online)


def tag_of(fields: Collection[bytes]) -> str | None:
    """Return the tag of a unit with these LogExtraFields; None if the unit is not ours."""
    prefix = f"{TAG}=".encode()
    for field in fields:
        if field.startswith(prefix):
            return field[len(prefix) :].decode()
    return None


def _fields(name: str, dataflow_id: str, node: str, tag: str) -> list[bytes]:
    """Return journal fields with which one query finds a node's lines and systemd's about it."""
    fields = {"DORA_DATAFLOW": dataflow_id, "DORA_NODE": node, TAG: tag}
    if name:
        fields["DORA_DATAFLOW_NAME"] = name
    return [f"{field}={value}".encode() for field, value in fields.items()]


def _identity(identity: Identity) -> Properties:
    properties: Properties = []
    if identity.user:
        properties.append(("User", "s", identity.user))
    if identity.groups:
        properties.append(("SupplementaryGroups", "as", list(identity.groups)))
    if identity.folder is not None:
        properties += [
            ("StateDirectory", "as", [identity.folder.path]),
            ("StateDirectoryMode", "u", identity.folder.mode),
        ]
    return properties


def _mask(cores: Collection[int]) -> bytes:
    mask = 0
    for core in cores:
        mask |= 1 << core
    return mask.to_bytes(max(cores) // 8 + 1, "little")


def _capabilities(schedule: Schedule | None) -> int:
    """Return the mask of the capabilities that a node with this schedule needs."""
    capabilities = 0
    if schedule is not None and schedule.lock_memory:
        # In a container systemd may be unable to raise LimitMEMLOCK: its own is limited, too.
        capabilities |= 1 << CAP_IPC_LOCK
    if schedule is not None and schedule.policy == SCHED_DEADLINE:
        # Used, and dropped, by the program that `wrap_command` puts before the command.
        capabilities |= 1 << CAP_SYS_NICE
    return capabilities


def _schedule(schedule: Schedule) -> Properties:
    properties: Properties = []
    capabilities = _capabilities(schedule)
    if schedule.lock_memory:
        properties.append(("LimitMEMLOCK", "t", _INFINITY))
    if capabilities:
        properties.append(("AmbientCapabilities", "t", capabilities))
    if schedule.policy in (os.SCHED_FIFO, os.SCHED_RR):
        properties += [
            ("CPUSchedulingPolicy", "i", schedule.policy),
            ("CPUSchedulingPriority", "i", schedule.priority),
            ("CPUSchedulingResetOnFork", "b", True),
        ]
    return properties


def _resources(wanted: Resources) -> Properties:
    numbers = {
        "MemoryMax": wanted.memory_max,
        "MemoryHigh": wanted.memory_high,
        "MemorySwapMax": wanted.memory_swap_max,
        "TasksMax": wanted.tasks_max,
        "CPUWeight": wanted.cpu_weight,
        "IOWeight": wanted.io_weight,
    }
    properties: Properties = [(name, "t", n) for name, n in numbers.items() if n is not None]
    if wanted.cpu_quota is not None:
        properties.append(("CPUQuotaPerSecUSec", "t", round(wanted.cpu_quota * 1_000_000)))
    return properties


def _numbers(text: str) -> set[int]:
    """Parse a list of numbers as the kernel prints it: `0-3,8`."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            numbers.update(range(int(first), int(last or first) + 1))
    return numbers
