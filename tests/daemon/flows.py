"""Small dataflows as data, for tests of the daemon's decisions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from dorad.dataflow.model import Dataflow, Input, LogSource, NodeKind, NodeOutput, NodeSpec, Timer
from dorad.dataflow.settings import Restart, RestartPolicy


def node(
    node_id: str,
    *sources: str,
    dynamic: bool = False,
    options: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    **inputs: str,
) -> NodeSpec:
    """A node with the given inputs; an input without a name is named after its source.

    `options` are further fields of the node; `timeout` is the `input_timeout` of every input.
    """
    named = {source: source for source in sources} | inputs
    return NodeSpec(
        node_id,
        NodeKind.DYNAMIC if dynamic else NodeKind.PATH,
        path="dynamic" if dynamic else f"{node_id}.py",
        inputs=tuple(
            replace(_input(name, source), input_timeout=timeout) for name, source in named.items()
        ),
        outputs=("out",),
        **(options or {}),
    )


def restarted(policy: str = "always", **keys: Any) -> dict[str, Any]:
    """The `options` of a node with a restart policy."""
    return {"restart": Restart(RestartPolicy(policy), **keys)}


def _input(name: str, source: str) -> Input:
    if source.startswith("dora/timer"):
        return Input(name, Timer(10**8))
    if source.startswith("dora/logs"):
        return Input(name, LogSource())
    origin, _, output = source.partition("/")
    return Input(name, NodeOutput(origin, output or "out"))


def dataflow(*nodes: NodeSpec, base: Path = Path("/"), **options: object) -> Dataflow:
    """A dataflow of these nodes."""
    return Dataflow(nodes, base / "dataflow.yml", base, **options)


def chain(*ids: str) -> Dataflow:
    """Return nodes in a chain; the first is a source."""
    pairs: Sequence[tuple[str | None, str]] = list(zip((None, *ids), ids, strict=False))
    return dataflow(*(node(b, a) if a else node(b) for a, b in pairs))


def open_of(flow_inputs: Mapping[str, Mapping[str, str]]) -> dict[str, set[str]]:
    """Return the open inputs of a flow, as plain sets."""
    return {name: set(inputs) for name, inputs in flow_inputs.items()}
