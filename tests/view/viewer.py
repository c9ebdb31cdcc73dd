"""A client of Foxglove's WebSocket protocol, written for the tests from its specification."""

import asyncio
import base64
import json
import struct
from contextlib import asynccontextmanager

from websockets.asyncio.client import connect

from tests.harness.waiting import DEADLINE_S
from tests.record.shown import message_of, plain


class Viewer:
    """What a viewer has got; `read` reads on until a condition holds."""

    def __init__(self, connection):
        self.connection = connection
        self.info = {}
        self.channels = {}
        self.statuses = []
        self.messages = []
        """Topic, time in ns and content of each message."""
        self._subscribed = {}

    @property
    def topics(self):
        return {channel["topic"] for channel in self.channels.values()}

    def of(self, topic):
        return [content for name, _, content in self.messages if name == topic]

    async def read(self, until):
        async with asyncio.timeout(DEADLINE_S):
            while not until():
                self._take(await self.connection.recv())

    async def subscribe(self, *topics):
        wanted = []
        for id_, channel in self.channels.items():
            if channel["topic"] in topics:
                number = len(self._subscribed) + 1
                self._subscribed[number] = id_
                wanted.append({"id": number, "channelId": id_})
        assert len(wanted) >= len(topics)
        await self.send({"op": "subscribe", "subscriptions": wanted})

    async def unsubscribe(self, topic):
        gone = [n for n, id_ in self._subscribed.items() if self.channels[id_]["topic"] == topic]
        await self.send({"op": "unsubscribe", "subscriptionIds": gone})

    async def send(self, request):
        await self.connection.send(json.dumps(request))

    def _take(self, frame):
        if isinstance(frame, bytes):
            op, subscription, stamp = struct.unpack_from("<BIQ", frame)
            assert op == 1
            channel = self.channels[self._subscribed[subscription]]
            schema = base64.b64decode(channel["schema"])
            content = plain(message_of(channel["schemaName"], schema, frame[13:]))
            self.messages.append((channel["topic"], stamp, content))
            return
        told = json.loads(frame)
        match told["op"]:
            case "serverInfo":
                self.info = told
            case "advertise":
                for channel in told["channels"]:
                    assert channel["encoding"] == channel["schemaEncoding"] == "protobuf"
                    self.channels[channel["id"]] = channel
            case "status":
                self.statuses.append(told)
            case op:
                raise AssertionError(f"unknown: {op}")


@asynccontextmanager
async def viewing(address, protocol="foxglove.sdk.v1", **options):
    """Yield a connected viewer."""
    async with connect(address, subprotocols=[protocol], max_size=None, **options) as connection:
        viewer = Viewer(connection)
        await viewer.read(lambda: viewer.info)
        yield viewer
