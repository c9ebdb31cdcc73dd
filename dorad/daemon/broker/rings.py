"""What the daemon knows of one ring of a mailbox, and how an input of the file becomes one."""

from msgspec import Struct

from dorad.dataflow.model import Input, NodeOutput, NodeSpec, QueuePolicy, Timer
from dorad.shm import layout


class Ring(Struct):
    """A ring of a mailbox; `first` is the index of the first message of its present edge.

    A `retiring` ring gets no new messages, but queued ones can still be received. The ring of a
    `latched` edge keeps its newest message.
    """

    input: str
    plan: layout.RingPlan
    source: str | None
    interval_ns: int | None
    first: int = 0
    retiring: bool = False
    latched: bool = False


def has_lane(node: NodeSpec, item: Input) -> bool:
    """Return True if the ring needs a lane: the input keeps every message of calls and goals."""
    return (
        isinstance(item.source, NodeOutput)
        and item.queue_policy is not QueuePolicy.LATEST
        and not item.latched
        and item.max_rate_hz is None
        and not node.may_skip(item.id)
    )


def origin_of(item: Input) -> tuple[str | None, int | None]:
    """Return the source node of an input and the interval of its timer in ns, or None."""
    source = item.source
    return (
        source.node if isinstance(source, NodeOutput) else None,
        source.interval_ns if isinstance(source, Timer) else None,
    )
