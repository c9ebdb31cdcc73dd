"""A dataflow as plain typed values: what the rest of the system knows of a YAML file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from dorad.dataflow.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import Any

    from dorad.dataflow.types.model import TypeDef


class QueuePolicy(StrEnum):
    """What happens to a message for an input whose queue is full."""

    DROP_OLDEST = "drop_oldest"
    BACKPRESSURE = "backpressure"
    LATEST = "latest"


class NodeKind(StrEnum):
    """What a node is made of; decides which keys it may carry."""

    PATH = "path"
    DYNAMIC = "dynamic"
    SHELL = "shell"
    URL = "url"
    OPERATORS = "operators"
    MODULE = "module"
    ROS2 = "ros2"
    HUB = "hub"


class RestartPolicy(StrEnum):
    """When a node that ended is started again."""

    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


class Distribute(StrEnum):
    """How the files of a node reach its machine."""

    LOCAL = "local"
    SCP = "scp"
    HTTP = "http"


class OutputFraming(StrEnum):
    """Accepted for compatibility; the data plane has one framing, so the key changes nothing."""

    RAW = "raw"
    ARROW_IPC = "arrow-ipc"


class LogLevel(StrEnum):
    """Severities, plus `stdout` for the channel of lines that carry none."""

    ERROR = "error"
    WARN = "warn"
    INFO = "info"
    DEBUG = "debug"
    TRACE = "trace"
    STDOUT = "stdout"


class ParamType(StrEnum):
    """What the value of a parameter is."""

    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    STRING = "string"
    LIST = "list"
    MAP = "map"


@dataclass(frozen=True, slots=True)
class NodeOutput:
    """An output of another node. An operator's output is `<operator>/<output>`."""

    node: str
    output: str
    written: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        """The source as the file spells it."""
        return self.written or str(self)

    def __str__(self) -> str:
        return f"{self.node}/{self.output}"


@dataclass(frozen=True, slots=True)
class Timer:
    """`dora/timer/…`: a tick every `interval_ns` nanoseconds (always > 0)."""

    interval_ns: int
    written: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        """The source as the file spells it."""
        return self.written or str(self)

    def __str__(self) -> str:
        for unit, nanos in (("secs", 10**9), ("millis", 10**6), ("micros", 10**3)):
            if self.interval_ns % nanos == 0:
                return f"dora/timer/{unit}/{self.interval_ns // nanos}"
        return f"dora/timer/nanos/{self.interval_ns}"


@dataclass(frozen=True, slots=True)
class LogSource:
    """`dora/logs[/<level>[/<node>]]`: log lines of the dataflow, None meaning any."""

    level: LogLevel | None = None
    node: str | None = None
    written: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        """The source as the file spells it."""
        return self.written or str(self)

    def __str__(self) -> str:
        return "/".join(["dora/logs", *(part for part in (self.level, self.node) if part)])


Source = NodeOutput | Timer | LogSource


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a node or operator."""

    id: str
    source: Source
    queue_size: int = 10
    """Messages kept for a slow consumer, >= 1 (a written 0 acts as 1)."""
    queue_policy: QueuePolicy = QueuePolicy.DROP_OLDEST
    input_timeout: float | None = None
    """Seconds of silence after which the input counts as broken."""
    long_form: bool = False
    """Whether the file gives a mapping of options rather than just the source."""
    latched: bool = False
    """Whether whoever begins to receive gets the last message first, however old it is."""
    max_rate_hz: float | None = None
    """Messages a second that reach the node at most."""


@dataclass(frozen=True, slots=True)
class Sync:
    """Inputs of a node that are received together, as the event `name`."""

    name: str
    inputs: tuple[str, ...]
    """Two or more."""
    tolerance_ns: int
    """How far apart the messages of one event may have been sent."""


@dataclass(frozen=True, slots=True)
class Logging:
    """Where the output lines of a node go beside its log file."""

    send_stdout_as: str | None = None
    send_logs_as: str | None = None
    min_log_level: LogLevel | None = None
    max_log_size: int | None = None
    """Bytes after which the log file is rotated; None never rotates."""
    max_rotated_files: int = 5


@dataclass(frozen=True, slots=True)
class Types:
    """What a node says about the data of its ports; ids to type URNs and the like."""

    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    framing: Mapping[str, OutputFraming] = field(default_factory=dict)
    metadata: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pattern: str | None = None
    roles_in: Mapping[str, str] = field(default_factory=dict)
    """What part of a pattern each input carries; and each output."""
    roles_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Restart:
    """Whether and how fast a node that ended is started again. Times in seconds."""

    policy: RestartPolicy = RestartPolicy.NEVER
    max_restarts: int = 0
    """Per window; 0 is no limit."""
    delay: float | None = None
    max_delay: float | None = None
    window: float | None = None


class Scheduling(StrEnum):
    """How the kernel lets a node's process run: `other` is what it does with every process."""

    FIFO = "fifo"
    RR = "rr"
    DEADLINE = "deadline"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Resources:
    """What the processes of a node may use together; None is no limit, or the usual share."""

    memory_max: int | None = None
    """Bytes; beyond them the kernel ends all of the node's processes."""
    memory_high: int | None = None
    """Bytes; beyond them the kernel slows the node down."""
    memory_swap_max: int | None = None
    """Bytes."""
    cpu_quota: float | None = None
    """Seconds of computing in each second: 1.5 is one and a half cores."""
    cpu_weight: int | None = None
    """1 to 10000, against others that compute, too; 100 is the usual one. So is the next."""
    io_weight: int | None = None
    tasks_max: int | None = None
    """Processes and threads."""


@dataclass(frozen=True, slots=True)
class Realtime:
    """How urgent a node's process is. Times in ns."""

    policy: Scheduling = Scheduling.OTHER
    priority: int | None = None
    """1 to 99 with `fifo` and `rr`, and only there."""
    lock_memory: bool = False
    deadline_ns: int | None = None
    """How late a tick of a timer may be taken; with policy `deadline` also the kernel's."""
    runtime_ns: int = 0
    """With policy `deadline` what it may run in each period; so is the next."""
    period_ns: int = 0


@dataclass(frozen=True, slots=True)
class Git:
    """Where the source of a node is cloned from; at most one of branch, tag and rev."""

    url: str
    branch: str | None = None
    tag: str | None = None
    rev: str | None = None


@dataclass(frozen=True, slots=True)
class Deploy:
    """On which machine a node runs."""

    machine: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    working_dir: str | None = None
    distribute: Distribute = Distribute.LOCAL


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of a runtime node; `source` is the file that holds it."""

    id: str
    language: str
    """`python`, `shared-library` or `wasm`."""
    source: str
    conda_env: str | None = None
    name: str | None = None
    description: str | None = None
    inputs: tuple[Input, ...] = ()
    outputs: tuple[str, ...] = ()
    types: Types = field(default_factory=Types)
    build: tuple[str, ...] = ()
    logging: Logging = field(default_factory=Logging)


@dataclass(frozen=True, slots=True)
class ParamSpec:
    """What a node says about one of its parameters; `params.check` holds values against it."""

    type: ParamType
    default: Any = None
    """None: the parameter has no value until it is set."""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Any, ...] = ()
    """The values that are allowed; empty allows all."""
    description: str | None = None


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One entry of `nodes`."""

    id: str
    kind: NodeKind
    key: str = field(default="", compare=False)
    """Its place in the file: `nodes[2]`. `Dataflow.problem` turns keys below it into positions."""
    name: str | None = None
    description: str | None = None
    path: str | None = None
    """As written (variables in it are the launcher's to expand); None unless a path-like kind."""
    path_sha256: str | None = None
    """64 lower-case hex digits, only with a URL."""
    args: str | None = None
    """One string with shell quoting, already known to split; nothing in it is expanded."""
    env: Mapping[str, str] = field(default_factory=dict)
    """What the process sees: the dataflow's `env` with the node's own on top, all expanded."""
    own_env: Mapping[str, str] = field(default_factory=dict)
    """Only what this node itself sets; goes over `--env`, which goes over the dataflow's."""
    build: tuple[str, ...] = ()
    """One command a line, no blank lines; `words.split_command` makes the argv of each."""
    git: Git | None = None
    hub: str | None = None
    inputs: tuple[Input, ...] = ()
    """For an operator node empty; its operators have the inputs. See `all_inputs`."""
    sync: tuple[Sync, ...] = ()
    """No input is in two of them."""
    outputs: tuple[str, ...] = ()
    types: Types = field(default_factory=Types)
    cpu_affinity: tuple[int, ...] = ()
    realtime: Realtime | None = None
    resources: Resources | None = None
    user: str | None = None
    """Who it runs as, where systemd starts it; None is what the daemon's configuration says."""
    spin_us: int | None = None
    """Upper bound of the adaptive spin before the node sleeps; 0 never spins; None the default."""
    shared_memory_pool_size: int | None = None
    """Bytes."""
    restart: Restart = field(default_factory=Restart)
    health_check_timeout: float | None = None
    startup_timeout: float | None = None
    finish_grace_secs: float | None = None
    logging: Logging = field(default_factory=Logging)
    deploy: Deploy | None = None
    operators: tuple[Operator, ...] = ()
    single_operator: bool = False
    """Whether it has one `operator` rather than a list, so that `node/output` names its output."""
    module: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    """Of a module: the texts that its nodes get."""
    declared: Mapping[str, ParamSpec] = field(default_factory=dict)
    """Of a program: the parameters that can be read and set while it runs."""

    @property
    def is_dynamic(self) -> bool:
        """Whether nothing is spawned and a process attaches later by the node's id."""
        return self.kind is NodeKind.DYNAMIC

    def may_skip(self, input_id: str) -> bool:
        """Whether the node may let messages of an input lie although it waits for some."""
        return self.is_limited(input_id) or any(input_id in group.inputs for group in self.sync)

    def is_limited(self, input_id: str) -> bool:
        """Whether at most so many messages a second of an input reach the node."""
        return any(i.id == input_id and i.max_rate_hz is not None for i in self.all_inputs)

    @property
    def all_inputs(self) -> tuple[Input, ...]:
        """Inputs as the data plane names them: an operator's are `<operator>/<input>`."""
        if not self.operators:
            return self.inputs
        return tuple(
            replace(i, id=f"{op.id}/{i.id}", long_form=True)
            for op in self.operators
            for i in op.inputs
        )

    @property
    def all_outputs(self) -> tuple[str, ...]:
        """Outputs as the data plane names them: an operator's are `<operator>/<output>`."""
        if not self.operators:
            return self.outputs
        return tuple(f"{op.id}/{output}" for op in self.operators for output in op.outputs)


@dataclass(frozen=True, slots=True)
class TypeRule:
    """One more implicit conversion between two type URNs."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class ModuleUse:
    """A node of the file that was a module, and whose place the module's nodes have taken."""

    id: str
    """As the nodes in it begin: those of `nav` are called `nav.…`."""
    name: str
    """What the module calls itself."""
    file: str
    """The module's file as people see it."""
    key: str
    """Where it stands: keys that go on with `.nodes` are in the module's file."""
    via: tuple[str, ...]
    """The nodes that led to the file, innermost first."""


def module_of(modules: Iterable[ModuleUse], key: str) -> ModuleUse | None:
    """The innermost module in whose file a key is."""
    within = (use for use in modules if key.startswith(f"{use.key}.nodes["))
    return max(within, key=lambda use: len(use.key), default=None)


@dataclass(frozen=True, slots=True)
class Dataflow:
    """A whole checked dataflow: every input's source exists, every id is unique."""

    nodes: tuple[NodeSpec, ...]
    path: Path
    """The file as it was named, for messages."""
    base_dir: Path
    """Absolute directory of the file: relative paths in it start here."""
    descriptor: dict[str, Any] = field(default_factory=dict)
    """The file as parsed: plain JSON-able values under the YAML's names, `env` expanded."""
    env: Mapping[str, str] = field(default_factory=dict)
    exit_when_nodes_finish: bool | None = None
    health_check_interval: float = 5.0
    """Seconds, > 0."""
    strict_types: bool = False
    type_rules: tuple[TypeRule, ...] = ()
    own_types: tuple[TypeDef, ...] = ()
    """The user's types that its ports may name, by URN; in the descriptor they are `types`."""
    debug: bool = False
    """`debug.enable_debug_inspection`; accepted, inspection works without it."""
    deploy: Deploy | None = None
    warnings: tuple[Problem, ...] = field(default=(), compare=False)
    """What is accepted but will not do what the file hopes for, `ignored` keys included."""
    positions: Mapping[str, tuple[int, int]] = field(default_factory=dict, compare=False)
    """Key path to (line, column) in the file, both from 1."""
    modules: tuple[ModuleUse, ...] = field(default=(), compare=False)
    """What were modules in the file, outer ones first; `nodes` has their nodes instead."""

    @property
    def ignored(self) -> tuple[Problem, ...]:
        """The warnings of keys that are ignored, which `--strict` makes errors."""
        return tuple(warning for warning in self.warnings if warning.ignored)

    def problem(self, key: str, message: str, hint: str | None = None) -> Problem:
        """Something about one key of the file, or of a module's file, at its place there."""
        line, column = self.positions.get(key, (0, 0))
        use = module_of(self.modules, key)
        if use is None:
            return Problem(str(self.path), line, column, key, message, hint)
        own = key.removeprefix(f"{use.key}.")
        return Problem(use.file, line, column, own, message, hint, use.via)

    def node(self, node_id: str) -> NodeSpec:
        """The node called `node_id`; raises KeyError."""
        for node in self.nodes:
            if node.id == node_id:
                return node
        raise KeyError(node_id)
