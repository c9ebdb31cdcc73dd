"""The `record` block of a dataflow: a recording of each of its runs.

The block becomes a node, which no list of `nodes` contains: each machine of a fleet records its own
part of the dataflow.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from msgspec.structs import replace

from dorad.dataflow.durations import parse_duration
from dorad.dataflow.errors import TextError
from dorad.dataflow.model import (
    LINK,
    RECORDER,
    REPLAYER,
    Dataflow,
    HopSource,
    Input,
    LogSource,
    NodeKind,
    NodeOutput,
    NodeSpec,
)
from dorad.dataflow.settings import (
    RECORD_FOLDER,
    RECORD_QUEUE_SIZE,
    RecordBlock,
    Restart,
    RestartPolicy,
)
from dorad.dataflow.sizes import parse_size

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from dorad.dataflow.fields import Fields

NODE_ID = "__dora_record__"
"""The id of the recorder, as in dora 1.x."""

ATTACHED = "__dora_record_"
"""The start of the id of a recorder that has joined a running dataflow."""

LOGS_INPUT = "dora___logs"
HOPS_INPUT = "dora___hops"
HOPS_QUEUE_SIZE = 512
"""Messages with hop records that wait for a recorder, 16 KiB each: those of a second at most."""

COMPRESSIONS = ("auto", "zstd", "lz4", "none")

# At once: what comes meanwhile waits in its queues, for a second at a thousand messages a second.
_RESTART = Restart(
    RestartPolicy.ON_FAILURE, delay=0.05, max_delay=30.0, max_restarts=10, window=600
)


def read_recording(fields: Fields) -> RecordBlock | None:
    """Return the block `record`, or None."""
    block = fields.inside("record")
    if block is None:
        return None
    keep = block.checked("keep", parse_time, None)
    keep_incidents = block.checked("keep_incidents", parse_time, None)
    split = block.checked("split", parse_split, (None, None))
    recording = RecordBlock(
        folder=block.text("folder") or RECORD_FOLDER,
        topics=block.texts("topics"),
        exclude=block.texts("exclude"),
        keep=keep,
        keep_incidents=keep_incidents,
        max_incidents_size=block.size("max_incidents_size", minimum=1),
        split_bytes=split[0],
        split_s=split[1],
        max_size=block.size("max_size", minimum=1),
        min_free=block.size("min_free"),
        compression=block.checked("compression", _compression, "auto"),
        queue_size=block.integer("queue_size", minimum=1, maximum=65536) or RECORD_QUEUE_SIZE,
        user=block.text("user"),
    )
    if keep is not None and (recording.split_bytes or recording.split_s):
        block.problems.error(
            block.name_of("split"), "goes not with `keep`", "a black box has its own segments"
        )
    if keep is None and (keep_incidents is not None or recording.max_incidents_size is not None):
        name = "keep_incidents" if keep_incidents is not None else "max_incidents_size"
        block.problems.error(
            block.name_of(name), "goes with `keep`", "only a black box has incidents"
        )
    block.finish({"output": "write `folder`", "file": "write `folder`", "path": "write `folder`"})
    return recording


def parse_time(text: str) -> float:
    """Return a time such as `60s`, `5m` or `90` in seconds, at least one. Raises TextError."""
    try:
        seconds = parse_duration(text)
    except TextError:
        seconds = 0.0
    if seconds < 1:
        raise TextError(f"`{text}` is not a time of a second or more", "write `60s` or `5m`")
    return seconds


def parse_split(text: str) -> tuple[int | None, float | None]:
    """Return where a file ends: its bytes, or its seconds. Raises TextError."""
    try:
        if not text.strip().isdecimal():
            return None, parse_time(text)
    except TextError:
        pass  # not a time: a size
    try:
        size = parse_size(text)
    except TextError:
        raise TextError(f"`{text}` is neither a size nor a time", "write `500MB` or `5m`") from None
    if size < 1 << 20:
        raise TextError(f"`{text}` is less than 1MB", "write a time with its unit: `5m`")
    return size, None


def _compression(text: str) -> str:
    if text not in COMPRESSIONS:
        raise TextError(f"must be one of {', '.join(COMPRESSIONS)}, not `{text}`")
    return text


def topics_in(dataflow: Dataflow) -> list[str]:
    """Return all topics that nodes here send, in the order of the file."""
    return [
        f"{node.id}/{output}"
        for node in dataflow.nodes
        if node.id != LINK
        for output in node.all_outputs
    ]


def topics_of(dataflow: Dataflow, name: str) -> list[str]:
    """Return the topics that a name in `topics` or `exclude` stands for.

    It is a topic, or a node or operator with all its outputs. As in the file, the operator's id may
    be omitted for a node with a single `operator`.
    """
    node_id, _, text = name.partition("/")
    output = next((node.output_named(text) for node in dataflow.nodes if node.id == node_id), None)
    full = f"{node_id}/{output}" if output else name
    return [topic for topic in topics_in(dataflow) if f"{topic}/".startswith(f"{full}/")]


def choose_topics(
    dataflow: Dataflow, wanted: Collection[str], excluded: Iterable[str]
) -> list[str]:
    """Return the topics to record, in the order of the file; of all topics if none is wanted."""
    chosen = {topic for name in wanted for topic in topics_of(dataflow, name)}
    left_out = {topic for name in excluded for topic in topics_of(dataflow, name)}
    return [
        topic
        for topic in topics_in(dataflow)
        if (not wanted or topic in chosen) and topic not in left_out
    ]


def unknown_names(dataflow: Dataflow, names: Iterable[str]) -> list[str]:
    """Return the names that stand for no output of the dataflow."""
    return [name for name in names if not topics_of(dataflow, name)]


def is_recorder(node: NodeSpec) -> bool:
    """Return True for a node that records, also for one that has joined a running dataflow."""
    return node.is_recorder or (node.is_dynamic and node.id.startswith(ATTACHED))


def with_hops(node: NodeSpec) -> NodeSpec:
    """Return a node; one that records also gets the hop records, which no file asks for."""
    if not is_recorder(node) or all(entry.id != LOGS_INPUT for entry in node.inputs):
        return node
    entry = Input(HOPS_INPUT, HopSource(), HOPS_QUEUE_SIZE, long_form=True)
    return replace(node, inputs=(*node.inputs, entry))


def is_replayer(node: NodeSpec) -> bool:
    """Return True for the node that sends recorded messages."""
    return node.path == REPLAYER


def records_or_replays(node: NodeSpec) -> bool:
    """Return True for a node that is a tool: it answers nothing that other nodes send."""
    return is_recorder(node) or is_replayer(node)


def input_name(topic: str) -> str:
    """Return the input of the recorder for a topic, as in dora 1.x."""
    node, _, output = topic.partition("/")
    return f"{node}___{output}"


def recorded(dataflow: Dataflow, machine: str = "") -> Dataflow:
    """Return the dataflow with the node that its block `record` asks for.

    Files of a dataflow over several machines are called after the `machine`, too.
    """
    recording = dataflow.record
    if recording is None or any(node.id == NODE_ID for node in dataflow.nodes):
        return dataflow
    topics = choose_topics(dataflow, recording.topics, recording.exclude)
    if not topics:
        return dataflow
    name = f"{dataflow.path.stem}_{machine}" if machine else dataflow.path.stem
    return replace(dataflow, nodes=(*dataflow.nodes, _node(recording, name, topics)))


def keep_recorder(before: Dataflow, after: Dataflow) -> Dataflow:
    """Return a changed dataflow with the recorder of `before`, without inputs that ended.

    Outputs that are new are recorded from the next start on.
    """
    known = next((node for node in before.nodes if node.id == NODE_ID), None)
    if known is None or any(node.id == NODE_ID for node in after.nodes):
        return after
    topics = set(topics_in(after))
    inputs = tuple(
        entry
        for entry in known.inputs
        if not isinstance(entry.source, NodeOutput) or str(entry.source) in topics
    )
    return replace(after, nodes=(*after.nodes, replace(known, inputs=inputs)))


def _node(recording: RecordBlock, name: str, topics: list[str]) -> NodeSpec:
    size = recording.queue_size
    inputs = [
        Input(input_name(topic), NodeOutput(*topic.split("/", 1)), size, long_form=True)
        for topic in topics
    ]
    inputs.append(Input(LOGS_INPUT, LogSource(), max(size, RECORD_QUEUE_SIZE), long_form=True))
    words = ["--folder", recording.folder, "--name", name]
    words += ["--compression", recording.compression]
    for flag, value in (
        ("--keep", recording.keep),
        ("--keep-incidents", recording.keep_incidents),
        ("--max-incidents-size", recording.max_incidents_size),
        ("--split-size", recording.split_bytes),
        ("--split-time", recording.split_s),
        ("--max-size", recording.max_size),
        ("--min-free", recording.min_free),
    ):
        if value is not None:
            words += [flag, f"{value:g}" if isinstance(value, float) else str(value)]
    return with_hops(
        NodeSpec(
            NODE_ID,
            NodeKind.PATH,
            path=RECORDER,
            args=shlex.join(words),
            inputs=tuple(inputs),
            spin_us=0,
            restart=_RESTART,
            user=recording.user,
        )
    )
