"""The methods `top` and `topic.…`: what passes through a running dataflow."""

from __future__ import annotations

import itertools
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.daemon import topicrates, wiring
from dorad.dataflow.model import Input, NodeOutput
from dorad.dataflow.nearest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from dorad.control.server import Call
    from dorad.daemon.broker import Broker
    from dorad.daemon.measure import Measure
    from dorad.daemon.registry import Registry
    from dorad.dataflow.model import Dataflow
    from dorad.shm.ring import Counters


class TopicMethods:
    """Looking at outputs, receiving from them and sending on them."""

    def __init__(self, registry: Registry, measure: Measure) -> None:
        self._registry = registry
        self._measure = measure
        self._ghosts = itertools.count(1)

    async def top(self, _call: Call, _params: m.Nothing) -> m.Top:
        """Return what all that runs uses and passes on."""
        return self._measure.top()

    async def list_all(self, _call: Call, params: m.Ref) -> m.TopicList:
        """List the outputs of a dataflow and who receives them."""
        record = self._registry.find(params.dataflow, ended_too=True)
        return m.TopicList(
            dataflow=record.uuid, topics=wiring.topics(self._registry.dataflow_of(record))
        )

    async def watch(self, _call: Call, params: m.TopicWatch) -> AsyncIterator[m.TopicRates]:
        """Measure outputs from the counters of their rings, and yield that once a second."""
        _, run, dataflow = self._registry.find_run(params.dataflow)
        if params.window < 1:
            raise ControlError("bad-request", "a window has at least 1 s")
        async with AsyncExitStack() as stack:
            looks = {}
            for topic in _chosen(dataflow, params.topics):
                looks[str(topic)] = await self._look(stack, run.broker, dataflow, topic)
            rates = await stack.enter_async_context(
                aclosing(topicrates.measure(looks, params.window))
            )
            async for each in rates:
                yield each

    async def _look(
        self, stack: AsyncExitStack, broker: Broker, dataflow: Dataflow, topic: NodeOutput
    ) -> Callable[[], Counters | None]:
        """Return what reads a ring that an output feeds.

        One that nobody receives feeds a ghost's for the time being.
        """
        subscribers = wiring.subscribers(dataflow, topic.node, topic.output)
        if subscribers:
            node, name = subscribers[0].node, subscribers[0].input
        else:
            node, name = f".watch-{next(self._ghosts)}", "topic"
            await broker.add_guest(node, (Input(name, topic, queue_size=1),), {})
            stack.callback(broker.remove_guest, node)

        def look() -> Counters | None:
            try:
                return broker.edge_counters_of(node, name)
            except KeyError:
                return None

        return look

    async def subscribe(
        self, call: Call, params: m.TopicSubscribe
    ) -> AsyncIterator[tuple[m.TopicHeader, bytes]]:
        """Yield what outputs send."""
        _, run, dataflow = self._registry.find_run(params.dataflow)
        topics = _chosen(dataflow, params.topics)
        messages = run.taps.subscribe(topics, queue_size=params.queue_size, stream=call.id)
        async with aclosing(messages):
            async for each in messages:
                yield each

    async def publish(self, _call: Call, params: m.TopicPublish) -> m.Published:
        """Send on an output as its node would."""
        _, run, dataflow = self._registry.find_run(params.dataflow)
        (topic,) = _chosen(dataflow, [params.topic])
        targets = [
            (each.node, each.input)
            for each in wiring.subscribers(dataflow, topic.node, topic.output)
        ]
        return await run.taps.publish(topic, targets, params.data, params.metadata)


def _chosen(dataflow: Dataflow, wanted: list[str]) -> list[NodeOutput]:
    """Return the outputs that are named, or all. Raises ControlError."""
    there = {
        f"{node.id}/{output}": NodeOutput(node.id, output)
        for node in dataflow.nodes
        for output in node.all_outputs
    }
    if not wanted:
        if not there:
            raise ControlError("not-found", "the dataflow has no outputs")
        return list(there.values())
    for name in wanted:
        if name not in there:
            raise ControlError(
                "not-found",
                f"the dataflow has no output {name!r}",
                did_you_mean(name, list(there)) or f"it has: {', '.join(there) or 'none'}",
            )
    return [there[name] for name in wanted]
