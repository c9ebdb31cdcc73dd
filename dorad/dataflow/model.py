"""A dataflow as plain typed values: the only form of the YAML file outside this package."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Struct, field
from msgspec.structs import replace

from dorad.dataflow.errors import Problem
from dorad.dataflow.settings import (
    Deploy,
    Git,
    Logging,
    LogLevel,
    ParamSpec,
    Realtime,
    RecordBlock,
    Resources,
    Restart,
    Ros2Bridge,
    Types,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from dorad.dataflow.types.model import TypeDef


LINK = "dora.link"
"""The id of the node that carries messages between this machine and others."""


ARCH = "DORA_ARCH"
"""The variable in a node's `path` for the architecture of its machine, as `uname -m` prints it."""

RECORDER = "dora-record-node"
"""The program of a node that records its inputs."""

REPLAYER = "dora-replay-node"
"""The program of a node that sends recorded messages."""

ROS2 = "ros2"
"""The command of ROS 2, which starts processes of its own."""


def ros2_words(path: str) -> list[str] | None:
    """Return the arguments of `ros2` in a node's `path`, None for other programs."""
    program, *words = path.split() or [""]
    return words if program == ROS2 else None


class QueuePolicy(StrEnum):
    """What happens to a message that arrives at a full queue."""

    DROP_OLDEST = "drop_oldest"
    BACKPRESSURE = "backpressure"
    LATEST = "latest"


class NodeKind(StrEnum):
    """The kind of program behind a node; it decides which keys the node may have."""

    PATH = "path"
    DYNAMIC = "dynamic"
    SHELL = "shell"
    URL = "url"
    OPERATORS = "operators"
    MODULE = "module"
    ROS2 = "ros2"
    HUB = "hub"
    LINK = "link"
    """The link process. No file can have it: `share` adds it to the part of one machine."""


class _Value(Struct, frozen=True, eq=False):
    """A value that equals another one wherever, and however, the file spells it."""

    NOT_COMPARED: ClassVar[tuple[str, ...]]
    """The fields that tell where and how the file spells it."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.compared() == other.compared()

    def __ne__(self, other: object) -> bool:  # that of Struct would compare identities
        return not self == other

    def __hash__(self) -> int:
        return hash(self.compared())

    def compared(self) -> tuple[Any, ...]:
        """Return the values of all other fields."""
        names = (name for name in self.__struct_fields__ if name not in self.NOT_COMPARED)
        return tuple(getattr(self, name) for name in names)


class NodeOutput(_Value, frozen=True):
    """An output of another node. An operator's output is `<operator>/<output>`."""

    NOT_COMPARED = ("written",)

    node: str
    output: str
    written: str = ""

    @property
    def text(self) -> str:
        """The source as the file spells it."""
        return self.written or str(self)

    def __str__(self) -> str:
        return f"{self.node}/{self.output}"


class Timer(_Value, frozen=True):
    """`dora/timer/…`: a tick every `interval_ns` nanoseconds, at least 1."""

    NOT_COMPARED = ("written",)

    interval_ns: int
    written: str = ""

    @property
    def text(self) -> str:
        """The source as the file spells it."""
        return self.written or str(self)

    def __str__(self) -> str:
        for unit, nanos in (("secs", 10**9), ("millis", 10**6), ("micros", 10**3)):
            if self.interval_ns % nanos == 0:
                return f"dora/timer/{unit}/{self.interval_ns // nanos}"
        return f"dora/timer/nanos/{self.interval_ns}"


class LogSource(_Value, frozen=True):
    """`dora/logs[/<level>[/<node>]]`: log lines of the dataflow; None means any."""

    NOT_COMPARED = ("written",)

    level: LogLevel | None = None
    node: str | None = None
    written: str = ""

    @property
    def text(self) -> str:
        """The source as the file spells it."""
        return self.written or str(self)

    def __str__(self) -> str:
        return "/".join(["dora/logs", *(part for part in (self.level, self.node) if part)])


class HopSource(_Value, frozen=True):
    """`dora/hops`: what all nodes do with messages. Only recorders have such an input."""

    @property
    def text(self) -> str:
        """The source as a file would spell it."""
        return str(self)

    def __str__(self) -> str:
        return "dora/hops"


Source = NodeOutput | Timer | LogSource | HopSource


class Input(Struct, frozen=True):
    """One input of a node or operator."""

    id: str
    source: Source
    queue_size: int = 10
    """Messages kept for a slow consumer, at least 1; 0 in the file counts as 1."""
    queue_policy: QueuePolicy = QueuePolicy.DROP_OLDEST
    input_timeout: float | None = None
    """Seconds without a message after which the input counts as broken."""
    long_form: bool = False
    """Whether the file gives a mapping of options instead of only the source."""
    latched: bool = False
    """Whether a new receiver gets the last message first, however old it is."""
    max_rate_hz: float | None = None
    """Maximum number of messages per second that reach the node."""


class Sync(Struct, frozen=True):
    """Inputs that a node receives together, as one event called `name`."""

    name: str
    inputs: tuple[str, ...]
    """Two or more."""
    tolerance_ns: int
    """Maximum time between the sending of the messages of one event."""


class Operator(Struct, frozen=True):
    """One operator of a node; `source` is its file."""

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


class Channel(Struct, frozen=True):
    """One output on its way to, or from, one other machine."""

    output: NodeOutput
    machine: str
    """The other machine."""
    reliable: bool = False
    """Whether the sender keeps a message until the receiver has it."""
    receivers: tuple[str, ...] = ()
    """The nodes of the other machine that receive it; empty for an incoming channel."""

    @property
    def name(self) -> str:
        """The name at both ends, which is also the output of the link that feeds nodes."""
        return str(self.output)

    @property
    def input(self) -> str:
        """The input of the link that takes the messages of an outgoing channel."""
        return f"{self.machine}/{self.output}"


class Link(Struct, frozen=True):
    """The channels of a link process."""

    outgoing: tuple[Channel, ...] = ()
    incoming: tuple[Channel, ...] = ()

    @property
    def machines(self) -> tuple[str, ...]:
        """The other machines, sorted."""
        return tuple(sorted({each.machine for each in (*self.outgoing, *self.incoming)}))


class NodeSpec(_Value, frozen=True):
    """One entry of `nodes`."""

    NOT_COMPARED = ("key",)

    id: str
    kind: NodeKind
    key: str = ""
    """Its key in the file: `nodes[2]`. `Dataflow.problem` turns keys below it into positions."""
    name: str | None = None
    description: str | None = None
    path: str | None = None
    """As written; the launcher expands variables in it. None for kinds without a path."""
    path_sha256: str | None = None
    """64 lower-case hex digits; only for a URL."""
    args: str | None = None
    """One string with valid shell quoting; nothing in it is expanded."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables of the process: the dataflow's `env` overridden by the node's, all expanded."""
    own_env: Mapping[str, str] = field(default_factory=dict)
    """The node's own `env`. It overrides `--env`, which overrides the dataflow's `env`."""
    build: tuple[str, ...] = ()
    """Commands, none blank; `words.split_command` makes the argv of each."""
    git: Git | None = None
    hub: str | None = None
    inputs: tuple[Input, ...] = ()
    """Empty for a node with operators, which have their own inputs; see `all_inputs`."""
    sync: tuple[Sync, ...] = ()
    """An input is in at most one of them."""
    outputs: tuple[str, ...] = ()
    types: Types = field(default_factory=Types)
    cpu_affinity: tuple[int, ...] = ()
    realtime: Realtime | None = None
    resources: Resources | None = None
    user: str | None = None
    """The user to run as under systemd; None is the default of the daemon's configuration."""
    groups: tuple[str, ...] = ()
    """Groups that it belongs to besides those of its user, under systemd."""
    secrets: tuple[str, ...] = ()
    """Names of the secrets that its process gets as files; their values are in no file of ours."""
    spin_us: int | None = None
    """Upper bound of the spin before the node sleeps; 0 never spins, None is the default."""
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
    """Whether the file says `operator`, not `operators`; then `node/output` is its output."""
    module: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    """For a module: the texts that its nodes get."""
    declared: Mapping[str, ParamSpec] = field(default_factory=dict)
    """For a program: the parameters that can be read and set while it runs."""
    ros2: Ros2Bridge | None = None
    link: Link | None = None
    """For the node `LINK`: its channels."""

    @property
    def is_dynamic(self) -> bool:
        """Whether it is a node that dorad does not start: the user starts its process."""
        return self.kind is NodeKind.DYNAMIC

    @property
    def is_recorder(self) -> bool:
        """Whether it is the node that records messages of all others until they have ended."""
        return self.path == RECORDER

    def operator_key(self, index: int) -> str:
        """Return the key of an operator in the file."""
        return f"{self.key}.operator" if self.single_operator else f"{self.key}.operators[{index}]"

    def may_skip(self, input_id: str) -> bool:
        """Return True if the node may leave messages of an input unread while it waits."""
        return self.is_limited(input_id) or any(input_id in group.inputs for group in self.sync)

    def is_limited(self, input_id: str) -> bool:
        """Return True if `max_rate_hz` limits the messages of an input."""
        return any(i.id == input_id and i.max_rate_hz is not None for i in self.all_inputs)

    @property
    def all_inputs(self) -> tuple[Input, ...]:
        """The inputs as the data plane names them: `<operator>/<input>` for operators."""
        if not self.operators:
            return self.inputs
        return tuple(
            replace(i, id=f"{op.id}/{i.id}", long_form=True)
            for op in self.operators
            for i in op.inputs
        )

    @property
    def all_outputs(self) -> tuple[str, ...]:
        """The outputs as the data plane names them: `<operator>/<output>` for operators."""
        if not self.operators:
            return self.outputs
        return tuple(f"{op.id}/{output}" for op in self.operators for output in op.outputs)

    def output_named(self, text: str) -> str | None:
        """Return the output that a user names, None if there is none.

        As in the file, the operator's id may be omitted for a node with a single `operator`.
        """
        full = f"{self.operators[0].id}/{text}" if self.single_operator else text
        return next((each for each in (text, full) if each in self.all_outputs), None)


class TypeRule(Struct, frozen=True):
    """An additional implicit conversion between two type URNs."""

    source: str
    target: str


class ModuleUse(Struct, frozen=True):
    """A module that the file names; the module's nodes have taken its place."""

    id: str
    """The prefix of its nodes' ids: the nodes of `nav` are called `nav.…`."""
    name: str
    """The name in the module's own file."""
    file: str
    """The module's file as messages show it."""
    key: str
    """Its key in the dataflow; keys that continue with `.nodes` are in the module's file."""
    via: tuple[str, ...]
    """The nodes that name the file, innermost first."""


def module_of(modules: Iterable[ModuleUse], key: str) -> ModuleUse | None:
    """Return the innermost module whose file contains a key, or None."""
    within = (use for use in modules if key.startswith(f"{use.key}.nodes["))
    return max(within, key=lambda use: len(use.key), default=None)


class Dataflow(_Value, frozen=True):
    """A checked dataflow: every source of an input exists and every id is unique."""

    NOT_COMPARED = ("warnings", "positions", "modules")

    nodes: tuple[NodeSpec, ...]
    path: Path
    """The file as the user named it, for messages."""
    base_dir: Path
    """The absolute directory of the file; relative paths in the file start here."""
    descriptor: dict[str, Any] = field(default_factory=dict)
    """The file as plain JSON values under the YAML's names, with `env` expanded."""
    env: Mapping[str, str] = field(default_factory=dict)
    exit_when_nodes_finish: bool | None = None
    safe_to_update: tuple[str, ...] = ()
    """A command that must exit with 0 before a robot switches to another release."""
    health_check_interval: float = 5.0
    """Seconds, above 0."""
    strict_types: bool = False
    type_rules: tuple[TypeRule, ...] = ()
    own_types: tuple[TypeDef, ...] = ()
    """The user's types that ports may name, sorted by URN; `types` in the descriptor."""
    debug: bool = False
    """`debug.enable_debug_inspection`; accepted, but inspection works without it."""
    deploy: Deploy | None = None
    record: RecordBlock | None = None
    """What is recorded whenever the dataflow runs."""
    warnings: tuple[Problem, ...] = ()
    """Warnings about accepted but probably unintended content, including `ignored` keys."""
    positions: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """The (line, column) of each key in the file, both counted from 1."""
    modules: tuple[ModuleUse, ...] = ()
    """The modules that the file names, outer ones first; `nodes` contains their nodes."""

    @property
    def ignored(self) -> tuple[Problem, ...]:
        """The warnings about ignored keys, which `--strict` turns into errors."""
        return tuple(warning for warning in self.warnings if warning.ignored)

    def ids_of(self, name: str) -> list[str]:
        """Return the id of a node, or the ids of the nodes of a module; none for another name."""
        return [node.id for node in self.nodes if node.id == name or node.id.startswith(f"{name}.")]

    def problem(self, key: str, message: str, hint: str | None = None) -> Problem:
        """Return a problem with a key, positioned in the dataflow's file or the module's file."""
        line, column = self.positions.get(key, (0, 0))
        use = module_of(self.modules, key)
        if use is None:
            return Problem(str(self.path), line, column, key, message, hint)
        own = key.removeprefix(f"{use.key}.")
        return Problem(use.file, line, column, own, message, hint, use.via)

    def node(self, node_id: str) -> NodeSpec:
        """Return the node called `node_id`. Raises KeyError."""
        for node in self.nodes:
            if node.id == node_id:
                return node
        raise KeyError(node_id)
