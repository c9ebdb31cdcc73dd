"""The settings of a node: logging, types, restarts, limits, real time, deployment, parameters."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct, field

RECORD_FOLDER = "recordings"
RECORD_QUEUE_SIZE = 1000


class RestartPolicy(StrEnum):
    """When a node that exited is started again."""

    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


class Distribute(StrEnum):
    """How the files of a node get to its machine."""

    LOCAL = "local"
    SCP = "scp"
    HTTP = "http"


class OutputFraming(StrEnum):
    """The framing of an output; accepted for compatibility, since there is only one framing."""

    RAW = "raw"
    ARROW_IPC = "arrow-ipc"


class LogLevel(StrEnum):
    """The severity of a log line; `stdout` is a line without one."""

    ERROR = "error"
    WARN = "warn"
    INFO = "info"
    DEBUG = "debug"
    TRACE = "trace"
    STDOUT = "stdout"


class ParamType(StrEnum):
    """The type of a parameter's value."""

    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    STRING = "string"
    LIST = "list"
    MAP = "map"


class Logging(Struct, frozen=True):
    """Where the output lines of a node go in addition to its log file."""

    send_stdout_as: str | None = None
    send_logs_as: str | None = None
    min_log_level: LogLevel | None = None
    max_log_size: int | None = None
    """Bytes after which the log file is rotated; None never rotates."""
    max_rotated_files: int = 5


class Types(Struct, frozen=True):
    """Declared properties of the data of a node's ports; mappings go from port ids to values."""

    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    framing: Mapping[str, OutputFraming] = field(default_factory=dict)
    metadata: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pattern: str | None = None
    roles_in: Mapping[str, str] = field(default_factory=dict)
    """The part of a pattern that each input carries; `roles_out` for the outputs."""
    roles_out: Mapping[str, str] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    """Messages per second that outputs must have, or an alert says so; 0: it may be silent."""


class Restart(Struct, frozen=True):
    """Whether and how fast a node that exited is started again. Times in seconds."""

    policy: RestartPolicy = RestartPolicy.NEVER
    max_restarts: int = 0
    """Maximum number of restarts within `window`; 0 is no limit."""
    delay: float | None = None
    max_delay: float | None = None
    window: float | None = None


class Scheduling(StrEnum):
    """The scheduling policy of a node's process; `other` is the default of the kernel."""

    FIFO = "fifo"
    RR = "rr"
    DEADLINE = "deadline"
    OTHER = "other"


class Resources(Struct, frozen=True):
    """Limits for all processes of a node together; None is no limit, or the default weight."""

    memory_max: int | None = None
    """Bytes; above them the kernel kills all processes of the node."""
    memory_high: int | None = None
    """Bytes; above them the kernel slows the node down."""
    memory_swap_max: int | None = None
    """Bytes."""
    cpu_quota: float | None = None
    """CPU time in cores: 1.5 is one and a half cores."""
    cpu_weight: int | None = None
    """1 to 10000, relative to other processes; the default is 100. The same for `io_weight`."""
    io_weight: int | None = None
    tasks_max: int | None = None
    """Processes and threads."""


class Realtime(Struct, frozen=True):
    """Real-time settings of a node's process. Times in nanoseconds."""

    policy: Scheduling = Scheduling.OTHER
    priority: int | None = None
    """1 to 99 for `fifo` and `rr`; None for the other policies."""
    lock_memory: bool = False
    deadline_ns: int | None = None
    """How late the node may take a timer tick; for `deadline` also the kernel's deadline."""
    runtime_ns: int = 0
    """For `deadline`: CPU time in each period of `period_ns`."""
    period_ns: int = 0


class Git(Struct, frozen=True):
    """The repository of a node's source; at most one of branch, tag and rev is set."""

    url: str
    branch: str | None = None
    tag: str | None = None
    rev: str | None = None


class Amounts(Struct, frozen=True):
    """How much of a machine a node needs, or how much a machine has; None is not stated."""

    cpu: float | None = None
    """Cores."""
    memory: int | None = None
    """Bytes."""
    gpu: int | None = None
    devices: tuple[str, ...] | None = None
    """Such as `/dev/video0`; one node at a time uses a device."""


class Avoid(Struct, frozen=True):
    """The machines that a node must not run on, and the nodes that it must not run beside."""

    machines: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    """Ids; the id of a module stands for all its nodes."""


class Deploy(Struct, frozen=True):
    """The machines that a node may run on."""

    machine: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    working_dir: str | None = None
    distribute: Distribute = Distribute.LOCAL
    needs: Amounts = field(default_factory=Amounts)
    avoid: Avoid = field(default_factory=Avoid)
    failover: bool = False
    """Whether the node moves to another machine when its own cannot be reached for long."""


class ParamSpec(Struct, frozen=True):
    """The declaration of one parameter; `params.check` checks values against it."""

    type: ParamType
    default: Any = None
    """None: the parameter has no value until one is set."""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Any, ...] = ()
    """The allowed values; empty allows all."""
    description: str | None = None


class RecordBlock(Struct, frozen=True):
    """The `record` block: what to record. Sizes in bytes, times in seconds; None is no limit."""

    folder: str = RECORD_FOLDER
    topics: tuple[str, ...] = ()
    """Topics, or nodes for all their outputs; empty for all."""
    exclude: tuple[str, ...] = ()
    keep: float | None = None
    """Keep only the last seconds, as a black box."""
    keep_incidents: float | None = None
    max_incidents_size: int | None = None
    split_bytes: int | None = None
    split_s: float | None = None
    max_size: int | None = None
    min_free: int | None = None
    compression: str = "auto"
    queue_size: int = RECORD_QUEUE_SIZE
    user: str | None = None


class Ros2Qos(Struct, frozen=True):
    """The quality of service of a ROS 2 topic, service or action. None is chosen by the bridge."""

    reliable: bool | None = None
    durability: str | None = None
    """`volatile` or `transient_local`."""
    liveliness: str | None = None
    """`automatic`, `manual_by_participant` or `manual_by_topic`."""
    lease_duration: float | None = None
    """Seconds."""
    max_blocking_time: float | None = None
    """Seconds."""
    keep_last: int | None = None
    keep_all: bool = False


class Ros2Endpoint(Struct, frozen=True):
    """One topic, service or action of a ROS 2 bridge."""

    kind: str
    """`subscribe`, `publish`, `service_client`, `service_server`, `action_client` or
    `action_server`."""
    name: str
    type: str
    """`package/Name`."""
    inputs: tuple[str, ...] = ()
    """What goes to ROS 2."""
    outputs: tuple[str, ...] = ()
    """What comes from it; a service has one."""
    qos: Ros2Qos = field(default_factory=Ros2Qos)


class Ros2Bridge(Struct, frozen=True):
    """The `ros2` of a node. As JSON it is the configuration of the bridge's process."""

    endpoints: tuple[Ros2Endpoint, ...]
    """One, or the topics of one ROS 2 node."""
    setup: str | None = None
    """A setup file, a folder with one, or a virtual environment; None searches."""
    namespace: str = "/"
    node_name: str | None = None
    """None is the node's id."""
    domain_id: int | None = None
    """None is that of the environment."""
    transport: str = "dds"
    """`dds` or `zenoh`."""
    zenoh_config: str | None = None
    use_sim_time: bool = False
    """Follow the time of `/clock`."""
