"""What clients and a coordinator send each other about the machines of the fleet."""

import msgspec

from dorad.control.messages import CallMethod, Struct
from dorad.int64 import Int64


class MachineCapacity(Struct):
    """What a machine has, as far as somebody has said so; null where not."""

    cpu: float | None = None
    memory: Int64 | None = None
    gpu: Int64 | None = None
    devices: list[str] | None = None


class FleetMachine(Struct):
    """A machine of the fleet, with the keys of a cluster file."""

    id: str
    host: str
    user: str | None = None
    port: Int64 | None = None
    labels: dict[str, str] = {}
    """Those with which it came; `robot.label` changes them without touching these."""
    zenoh_addr: str | None = None
    """Null: `host`, if that is an address."""
    zenoh_port: Int64 | None = None
    capacity: MachineCapacity = msgspec.field(default_factory=MachineCapacity)


class RobotAdd(Struct):
    """Add a robot. One that is there with the same keys is left as it is."""

    machine: FleetMachine
    change: bool = False
    """Whether one that is there with other keys gets these."""


class RobotRemove(Struct):
    """Remove a robot, with its certificate, secrets, alerts and last state."""

    robot: str
    lost: bool = False
    """Also if it shall run something: dataflows that were started leave it, and what runs there is
    not stopped."""


class FleetImport(Struct):
    """Make the machines of a cluster file those of the fleet."""

    machines: list[FleetMachine]
    removes: list[str] = []
    """The robots to remove. None is removed that is not named here."""
    dry_run: bool = False
    """Only return the difference."""


class FleetDifference(Struct):
    """What a request has changed in the fleet, or would change."""

    added: list[str] = []
    changed: dict[str, list[str]] = {}
    """By robot, each key in a line: `host: 10.0.0.1 -> 10.0.0.2`."""
    removed: list[str] = []
    unlisted: list[str] = []
    """Robots of the fleet that the request does not name; they stay."""


ROBOT_ADD = CallMethod(
    "robot.add", "admin", RobotAdd, FleetDifference, "Add a robot to the fleet, or change its keys."
)
ROBOT_REMOVE = CallMethod(
    "robot.remove", "admin", RobotRemove, FleetDifference, "Remove a robot from the fleet."
)
FLEET_IMPORT = CallMethod(
    "fleet.import",
    "admin",
    FleetImport,
    FleetDifference,
    "Make the machines of a cluster file those of the fleet.",
    seconds=lambda _params: 300.0,
)
