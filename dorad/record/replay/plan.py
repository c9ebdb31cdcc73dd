"""Change a recorded dataflow so that one replayer sends what some of its nodes have sent.

A single process sends all replayed topics, so that their order is that of the recording. Pure
functions over the descriptor, the plain values of the dataflow's file.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dorad.dataflow.model import RECORDER, Timer
from dorad.dataflow.model import REPLAYER as PROGRAM
from dorad.dataflow.nearest import did_you_mean
from dorad.dataflow.sources import parse_source
from dorad.problems import ProblemError
from dorad.record.replay.config import ROS_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

REPLAYER = "__dora_replay__"
"""The id of the node that sends recorded messages."""

MIN_QUEUE = 10
CHECKED_QUEUE = 10_000
STEPPED_QUEUE = 1024
"""Messages that an input can have queued while stepping, where nothing is dropped."""

WALL_CLOCK_KEYS = (
    "health_check_timeout",
    "restart_policy",
    "max_restarts",
    "restart_delay",
    "max_restart_delay",
    "restart_window",
)
"""Keys of a node that follow the wall clock, and are left out while stepping."""

_TICK = "dora/tick"
_DOMAIN_KEYS = ("setup", "domain_id", "transport")
"""Keys of `ros2` that say with which nodes of ROS 2 a bridge talks."""


class ReplayError(ProblemError):
    """A replay that cannot be started."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__("refused", message, hint)


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """Which nodes are replayed and which run."""

    replayed: tuple[str, ...]
    live: tuple[str, ...]
    topics: tuple[str, ...]
    """The topics that the replayer sends."""
    silent: tuple[str, ...]
    """Topics of replayed nodes that inputs of live nodes wait for, and that are not sent."""
    checked: tuple[str, ...]
    """Recorded topics of live nodes."""
    removed: tuple[str, ...]
    """Recorded topics of live nodes that the dataflow no longer has."""
    ticks: Mapping[str, int]
    """Ticks that the replayer sends, as outputs with their interval in ns; only when stepping."""
    endless: tuple[str, ...] = ()
    """Live nodes that do not end by themselves once the replayer has ended: those without a source,
    those on a cycle, and what they feed."""


def choose_replayed(
    descriptor: Mapping[str, Any],
    recorded: Collection[str],
    *,
    wanted: Sequence[str],
    live: Sequence[str],
    sources_only: bool,
    steps: bool = False,
) -> tuple[str, ...]:
    """Return the nodes that are replayed.

    `wanted` names them; without it, they are all nodes that have recorded topics but `live`; with
    `sources_only` those of them that no other node feeds. With `steps` every node may be live: the
    replayer sends ticks, and steps them.

    Raises:
        ReplayError: a name is unknown, or there is nothing to replay.
    """
    ids = [node["id"] for node in _nodes(descriptor)]
    for name in (*wanted, *live):
        if name not in ids:
            raise ReplayError(
                f"the recorded dataflow has no node {name!r}",
                did_you_mean(name, ids) or f"it has: {', '.join(ids) or 'none'}",
            )
    with_topics = {topic.partition("/")[0] or topic for topic in recorded}
    for name in wanted:
        if name not in with_topics:
            raise ReplayError(f"the recording has no message of node {name!r}")
    if wanted:
        chosen = [name for name in ids if name in wanted and name not in live]
    else:
        chosen = [name for name in ids if name in with_topics and name not in live]
        if sources_only and not live:
            fed = {node["id"] for node in _nodes(descriptor) if _feeders(node) - {node["id"]}}
            sources = [name for name in chosen if name not in fed]
            if chosen and not sources:
                raise ReplayError(
                    "the recorded dataflow has no source: every node is fed by another one",
                    f"name the nodes to test with --live: {', '.join(chosen)}",
                )
            chosen = sources
    if not chosen and not (steps and live):
        senders = ", ".join(sorted(with_topics)) or "no node"
        raise ReplayError(
            f"there is nothing to replay: the recording has messages of {senders}; "
            f"the dataflow has {', '.join(ids) or 'no node'}",
            "name the replayed nodes with --replace, or another dataflow with --dataflow",
        )
    return tuple(chosen)


def _feeders(node: Mapping[str, Any]) -> set[str]:
    """Return the nodes whose messages a node receives; its operators may feed each other."""
    feeders = set()
    for body in _bodies(node):
        for value in (body.get("inputs") or {}).values():
            source = value if isinstance(value, str) else value["source"]
            feeders.add(source.partition("/")[0])
    return feeders - {"dora"}


def _check_clients(
    nodes: Sequence[Mapping[str, Any]],
    live: Sequence[Mapping[str, Any]],
    replayed: Collection[str],
) -> None:
    """Refuse clients that run while their servers do not: recorded replies have recorded ids."""
    for node in live:
        if not str(node.get("pattern", "")).endswith("-client"):
            continue
        for server in nodes:
            calls = node["id"] in _feeders(server) and server["id"] in _feeders(node)
            if calls and server["id"] in replayed:
                raise ReplayError(
                    f"node {node['id']!r} would wait for replies of {server['id']!r}: the recorded "
                    "ones belong to the recorded requests",
                    f"let both run: --live {node['id']},{server['id']}",
                )


def rewire(
    descriptor: Mapping[str, Any],
    recorded: Collection[str],
    replayed: Sequence[str],
    *,
    programs: Mapping[str, str],
    checks: bool = False,
    steps: bool = False,
    lossless: bool = False,
    topics: Collection[str] | None = None,
    aliases: Mapping[str, str] | None = None,
    ros_clock: bool = False,
) -> tuple[dict[str, Any], ReplayPlan]:
    """Return the descriptor of the replay, and what it does.

    `programs` are other paths of live nodes. With `checks` the replayer receives the recorded
    topics of live nodes. With `steps` it also sends the ticks of live nodes, no queue drops a
    message before STEPPED_QUEUE of them, and nothing follows the wall clock. `lossless` makes every
    input wait that the replayer feeds; else only those do whose file gives no queue size, as in
    dora. Edges between live nodes stay as they are, but for `steps`.
    `topics` limits what is sent; `aliases` are other names of topics. With `ros_clock`, bridges
    publish the recorded time. The replayer has no arguments yet, see `set_arguments`.

    Raises:
        ReplayError: a program is given for a node that does not run, or a node that runs calls one
            that does not.
    """
    rewired = deepcopy(dict(descriptor))
    nodes = [node for node in _nodes(rewired) if not _is_recorder(node)]
    live = [node for node in nodes if node["id"] not in replayed]
    _check_clients(nodes, live, replayed)
    _use_programs(live, programs)
    sent = [
        topic
        for topic in sorted(recorded)
        if topic.partition("/")[0] in replayed and (topics is None or topic in topics)
    ]
    aliases = {**_aliases(nodes), **(aliases or {})}
    inputs = _Inputs(replayed, {*sent}, aliases, steps=steps, lossless=lossless)
    for node in live:
        if steps:
            for key in WALL_CLOCK_KEYS:
                node.pop(key, None)
        for body, prefix in _bodies_with_prefix(node):
            body["inputs"] = inputs.rewired(body.get("inputs") or {}, f"{node['id']}/{prefix}")
    live_ids = [node["id"] for node in live]
    known = {topic for topic in recorded if checks and topic.partition("/")[0] in live_ids}
    checked = sorted(known & {*_outputs(live), *aliases})
    outputs = [*sent, *sorted(inputs.silent)]
    types = _output_types(nodes)
    typed = {topic: types[topic] for topic in outputs if topic in types}
    sends = [*outputs, *inputs.ticks, *([ROS_CLOCK] if ros_clock else [])]
    clocks = _clock_bridges(nodes) if ros_clock else []
    rewired["nodes"] = [*live, *clocks, _replayer(sends, checked, typed)]
    plan = ReplayPlan(
        tuple(replayed),
        tuple(live_ids),
        tuple(sent),
        tuple(sorted(inputs.silent)),
        tuple(checked),
        tuple(sorted(known.difference(checked))),
        inputs.ticks,
        _endless(live),
    )
    return rewired, plan


def _clock_bridges(nodes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return bridges that publish /clock, one for each domain of the bridges in `nodes`."""
    blocks: list[dict[str, Any]] = []
    for node in nodes:
        if isinstance(node.get("ros2"), dict):
            block = {key: value for key, value in node["ros2"].items() if key in _DOMAIN_KEYS}
            if block not in blocks:
                blocks.append(block)
    return [
        {
            "id": f"__dora_clock_{number}__",
            "ros2": {
                **block,
                "node_name": "dora_replay_clock",
                "topic": "/clock",
                "message_type": "rosgraph_msgs/Clock",
                "direction": "publish",
            },
            "inputs": {"clock": {"source": f"{REPLAYER}/{ROS_CLOCK}", "queue_policy": "latest"}},
        }
        for number, block in enumerate(blocks or [{}])
    ]


def _endless(live: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the nodes that do not end by themselves once the replayer has ended."""
    feeders = {node["id"]: _feeders(node) for node in live}
    ending = {REPLAYER}
    while more := [
        name
        for name, sources in feeders.items()
        if name not in ending and sources and sources <= ending
    ]:
        ending.update(more)
    return tuple(name for name in feeders if name not in ending)


def set_arguments(rewired: Mapping[str, Any], arguments: str) -> None:
    """Set the arguments of the replayer in a descriptor that `rewire` has returned."""
    rewired["nodes"][-1]["args"] = arguments


def check_comparison(plan: ReplayPlan, ignores: Callable[[str], bool]) -> None:
    """Check that what was recorded can be compared; `ignores` says which topics are left out.

    Raises:
        ReplayError: the dataflow lacks a recorded output, or there is nothing to compare.
    """
    for topic in plan.removed:
        if not ignores(topic):
            raise ReplayError(
                f"the dataflow has no output {topic}, of which messages are recorded",
                f"leave it out with --ignore {topic}",
            )
    if not plan.checked:
        raise ReplayError(
            "there is nothing to compare: the recording has no message of a node that runs",
            "name nodes that run with --live",
        )
    if all(map(ignores, plan.checked)):
        raise ReplayError(
            "there is nothing to compare: --ignore leaves out every topic of the nodes that run",
            f"they send: {', '.join(plan.checked)}",
        )


def _use_programs(live: Sequence[dict[str, Any]], programs: Mapping[str, str]) -> None:
    """Give live nodes other programs. Raises ReplayError for a node that is not live."""
    by_id = {node["id"]: node for node in live}
    for name in sorted(programs):
        if name not in by_id:
            raise ReplayError(f"node {name!r} is replayed: its program cannot be replaced")
        by_id[name]["path"] = programs[name]
        for key in ("git", "build", "hub"):
            by_id[name].pop(key, None)


def _replayer(
    outputs: Sequence[str], checked: Sequence[str], types: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the node that sends the recorded messages, and receives the topics to check."""
    node: dict[str, Any] = {"id": REPLAYER, "path": PROGRAM, "outputs": list(outputs), "spin_us": 0}
    if checked:
        node["inputs"] = {
            # Not backpressure: the replayer may wait itself, for a node that waits for it.
            topic: {"source": topic, "queue_size": CHECKED_QUEUE}
            for topic in checked
        }
    if types:
        node["output_types"] = dict(types)
    return node


@dataclass
class _Inputs:
    """Rewires inputs of live nodes, and collects what the replayer has to offer them."""

    replayed: Collection[str]
    sent: Collection[str]
    aliases: Mapping[str, str]
    steps: bool
    lossless: bool
    silent: set[str] = field(default_factory=set)
    """Topics of replayed nodes that are not sent. An input of one closes with the replayer: a node
    without inputs would never end."""
    ticks: dict[str, int] = field(default_factory=dict)
    """Interval in ns of each timer that the replayer takes over, by its output."""

    def rewired(self, inputs: Mapping[str, Any], consumer: str) -> dict[str, Any]:
        """Return the inputs of a node or operator, whose names begin with `consumer`."""
        return {name: self._rewired(value, consumer + name) for name, value in inputs.items()}

    def _rewired(self, value: Any, name: str) -> Any:
        options = {} if isinstance(value, str) else dict(value)
        text = value if isinstance(value, str) else value["source"]
        text = self.aliases.get(text, text)
        if text.startswith("dora/"):
            timer = parse_source(text)
            if not self.steps or not isinstance(timer, Timer):
                return value
            output = f"{_TICK}/{name}"
            self.ticks[output] = timer.interval_ns
            return _stepped(f"{REPLAYER}/{output}", options)
        if text.partition("/")[0] not in self.replayed:
            return _stepped(text, options) if self.steps else value
        if text not in self.sent:
            self.silent.add(text)
        if self.steps:
            return _stepped(f"{REPLAYER}/{text}", options)
        return _waiting(f"{REPLAYER}/{text}", options, lossless=self.lossless)


def _stepped(source: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return an input whose queue drops nothing: stepping ends with an error before it does.

    One with `max_rate_hz` keeps its policy, which says what it selects.
    """
    stepped = {**options, "source": source}
    stepped["queue_size"] = max(STEPPED_QUEUE, int(options.get("queue_size", STEPPED_QUEUE)))
    stepped.pop("input_timeout", None)
    if "max_rate_hz" not in options:
        stepped.pop("queue_policy", None)
    return stepped


def _waiting(source: str, options: Mapping[str, Any], *, lossless: bool) -> dict[str, Any]:
    """Return an input that makes its sender wait, unless its file gives a queue size."""
    waiting = {**options, "source": source}
    if lossless or "queue_size" not in options:
        waiting["queue_size"] = max(MIN_QUEUE, int(options.get("queue_size", MIN_QUEUE)))
        waiting["queue_policy"] = "backpressure"
    return waiting


def _nodes(descriptor: Mapping[str, Any]) -> list[dict[str, Any]]:
    nodes = descriptor.get("nodes")
    if not isinstance(nodes, list):
        raise ReplayError("the recorded dataflow has no nodes")
    return [node for node in nodes if isinstance(node, dict) and "id" in node]


def _is_recorder(node: Mapping[str, Any]) -> bool:
    return node.get("path") == RECORDER or str(node["id"]).startswith("__dora_record_")


def _bodies(node: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    return (body for body, _ in _bodies_with_prefix(node))


def _bodies_with_prefix(node: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield what has inputs and outputs: the node, or its operators with their prefix."""
    if isinstance(node.get("operator"), dict):
        yield node["operator"], f"{node['operator'].get('id', 'op')}/"
    elif isinstance(node.get("operators"), list):
        for operator in node["operators"]:
            yield operator, f"{operator['id']}/"
    else:
        yield node, ""


def _aliases(nodes: Sequence[Any]) -> dict[str, str]:
    """Return the short names of the outputs of nodes with one `operator`."""
    return {
        f"{node['id']}/{output}": f"{node['id']}/{prefix}{output}"
        for node in nodes
        if isinstance(node.get("operator"), dict)
        for body, prefix in _bodies_with_prefix(node)
        for output in body.get("outputs") or ()
    }


def _outputs(nodes: Sequence[Any]) -> Iterator[str]:
    for node in nodes:
        for body, prefix in _bodies_with_prefix(node):
            for output in body.get("outputs") or ():
                yield f"{node['id']}/{prefix}{output}"


def _output_types(nodes: Sequence[Any]) -> dict[str, Any]:
    types = {}
    for node in nodes:
        for body, prefix in _bodies_with_prefix(node):
            for output, urn in (body.get("output_types") or {}).items():
                types[f"{node['id']}/{prefix}{output}"] = urn
    return types
