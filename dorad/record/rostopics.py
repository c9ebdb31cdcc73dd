"""The topics of ROS 2 that a dataflow bridges, and the topics of the dataflow that they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dorad.dataflow.model import NodeOutput
from dorad.problems import ProblemError
from dorad.ros2.environment import installed
from dorad.ros2.names import full_name, ros_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from dorad.dataflow.model import Dataflow, NodeSpec
    from dorad.record.sources import Recording
    from dorad.ros2.definitions import Definitions, Message


class RosTopic(NamedTuple):
    """One topic of ROS 2 that a node bridges."""

    name: str
    """Its full name, such as `/camera/image`."""
    type: str
    """`package/Name`."""
    topics: tuple[str, ...]
    """The outputs that get its messages, or what is published on it, as `node/output`."""
    published: bool
    """Whether the dataflow publishes it."""
    setup: str | None
    """The ROS 2 installation of the bridge; None searches."""


def bridged_topics(dataflow: Dataflow) -> list[RosTopic]:
    """Return the topics of all bridges of a dataflow, in the order of its file."""
    return [each for node in dataflow.nodes if node.ros2 is not None for each in _of_node(node)]


def _of_node(node: NodeSpec) -> Iterator[RosTopic]:
    bridge = node.ros2
    assert bridge is not None
    sources = {
        each.id: str(each.source) for each in node.inputs if isinstance(each.source, NodeOutput)
    }
    own = bridge.node_name or ros_name(node.id)
    for each in bridge.endpoints:
        name = full_name(each.name, bridge.namespace, own)
        if each.kind == "subscribe":
            topics = tuple(f"{node.id}/{output}" for output in each.outputs)
        elif each.kind == "publish":
            topics = tuple(sources[port] for port in each.inputs if port in sources)
        else:
            continue
        yield RosTopic(name, each.type, topics, each.kind == "publish", bridge.setup)


def definition_name(kind: str) -> str:
    """Return the name of the attachment with the definition of `package/Name`."""
    package, _, base = kind.partition("/")
    return f"ros2/{package}/msg/{base}.msg"


class RosTypes:
    """The types of bridged topics, in the installations of their bridges."""

    def __init__(self, folder: Path, environ: Mapping[str, str], setup: str | None = None) -> None:
        """`folder` is that of the dataflow; `setup` replaces the installations of all bridges."""
        self._folder = folder
        self._environ = environ
        self._setup = setup
        self._installed: dict[str | None, Definitions] = {}

    def message(self, topic: RosTopic) -> Message:
        """Return the type of a topic. Raises SetupError and DefinitionError."""
        setup = self._setup or topic.setup
        if setup not in self._installed:
            self._installed[setup] = installed(setup, self._folder, self._environ)
        return self._installed[setup].message(topic.type)


class ReplayedTopics(NamedTuple):
    """How a replay sends recorded topics of ROS 2 in place of the bridges of a dataflow."""

    names: Mapping[str, str]
    """The output that each recorded topic becomes."""
    aliases: Mapping[str, str]
    """Further outputs that get the same messages, with the one in `names`."""


def replayed_topics(
    dataflow: Dataflow, recordings: Sequence[Recording], remapped: Collection[str]
) -> ReplayedTopics:
    """Return which outputs recorded topics of ROS 2 become, without those that `remapped` names.

    Raises:
        ProblemError: a bridge has another type for a topic than the recording.
    """
    names: dict[str, str] = {}
    aliases: dict[str, str] = {}
    for bridged in bridged_topics(dataflow):
        types = {kind for each in recordings for kind in each.types_of(bridged.name)}
        if bridged.published or not types or bridged.name in remapped:
            continue
        package, _, base = bridged.type.partition("/")
        if types != {f"{package}/msg/{base}"}:
            raise ProblemError(
                "refused",
                f"the recording has {bridged.name} with the type {', '.join(sorted(types))}, "
                f"the dataflow with {bridged.type}",
                "write that type as `message_type`",
            )
        first = names.setdefault(bridged.name, bridged.topics[0])
        aliases |= {each: first for each in bridged.topics if each != first}
    return ReplayedTopics(names, aliases)
