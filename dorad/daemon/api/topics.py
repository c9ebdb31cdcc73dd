"""The methods `top` and `topic.…`: messages of running dataflows, and their rates."""

import itertools
from collections.abc import AsyncIterator
from contextlib import aclosing

from dorad.control import messages as m
from dorad.control import wiring
from dorad.control.errors import ControlError
from dorad.control.session import Call, handles
from dorad.daemon.measuring import topicrates
from dorad.daemon.measuring.measure import Measure
from dorad.daemon.registry import Registry
from dorad.daemon.subscription import reducing
from dorad.dataflow.model import NodeOutput


class TopicMethods:
    """Answers the methods `top` and `topic.…`."""

    def __init__(self, registry: Registry, measure: Measure) -> None:
        self._registry = registry
        self._measure = measure
        self._observer_numbers = itertools.count(1)

    @handles(m.TOP)
    async def top(self, _call: Call, _params: m.Nothing) -> m.Top:
        """Return resources and rates of all running dataflows."""
        return self._measure.top()

    @handles(m.TOP_HISTORY)
    async def history(self, _call: Call, params: m.TopHistory) -> m.History:
        """Return the figures of the last ten minutes, also of a dataflow that has ended."""
        record = self._registry.find(params.dataflow, ended_too=True)
        return self._measure.history(record, params.node, params.points)

    @handles(m.TOPIC_LIST)
    async def list_all(self, _call: Call, params: m.Ref) -> m.TopicList:
        """List the topics of a dataflow and their subscribers."""
        record = self._registry.find(params.dataflow, ended_too=True)
        channels = [] if record.run is None else record.run.channels
        topics = wiring.topics(self._registry.dataflow_of(record), channels)
        return m.TopicList(dataflow=record.uuid, topics=topics)

    @handles(m.TOPIC_WATCH)
    async def watch(self, _call: Call, params: m.TopicWatch) -> AsyncIterator[m.TopicRates]:
        """Yield the rates of topics once a second, from the counters of their rings."""
        _, run, dataflow = self._registry.find_run(params.dataflow)
        if params.window < 1:
            raise ControlError("bad-request", "`window` must be at least 1 second")
        topics = wiring.topics_named(dataflow, params.topics)
        observer = f".watch-{next(self._observer_numbers)}"

        def receivers(topic: NodeOutput) -> list[tuple[str, str]]:
            return wiring.receivers(run.dataflow, topic)

        rates = topicrates.watch(run.broker, observer, topics, receivers, params.window)
        async with aclosing(rates):
            async for each in rates:
                yield each

    @handles(m.TOPIC_SUBSCRIBE)
    async def subscribe(
        self, call: Call, params: m.TopicSubscribe
    ) -> AsyncIterator[tuple[m.TopicHeader, bytes]]:
        """Yield the messages of topics."""
        _, run, dataflow = self._registry.find_run(params.dataflow)
        topics = wiring.topics_named(dataflow, params.topics)
        messages = run.subscriptions.subscribe(
            topics, queue_size=params.queue_size, stream=call.id, reduce=reducing.encoded(params)
        )
        async with aclosing(messages):
            async for each in messages:
                yield each

    @handles(m.TOPIC_PUBLISH)
    async def publish(self, _call: Call, params: m.TopicPublish) -> m.Published:
        """Send a message on a topic, as its node would."""
        _, run, dataflow = self._registry.find_run(params.dataflow)
        topic = wiring.one_topic(dataflow, params.topic)
        targets = wiring.receivers(dataflow, topic)
        return await run.subscriptions.publish(topic, targets, params.data, params.metadata)
