"""The topics of ROS 2 in a recorded dataflow, as an MCAP file of ROS 2."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from dorad import __version__
from dorad.record.encoding.messages import Encoded, Kind
from dorad.record.export.topictables import Exported, LeftOut
from dorad.record.mcap import layout
from dorad.record.mcap.chunk import CHUNK_BYTES
from dorad.record.mcap.reader import RecordingError
from dorad.record.mcap.writer import RecordingFile
from dorad.record.rostopics import definition_name
from dorad.ros2.arrowtypes import ConversionError
from dorad.ros2.decode import STAMP, stamp_reader
from dorad.ros2.definitions import DefinitionError
from dorad.ros2.encode import encoder, with_stamp
from dorad.ros2.environment import SetupError
from dorad.ros2.messagetext import definition_text, parse_definition

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from dorad.record.encoding.messages import Decoded
    from dorad.record.rostopics import RosTopic, RosTypes
    from dorad.record.sources import Recording
    from dorad.ros2.definitions import Message

_log = logging.getLogger(__name__)


class _Channel(NamedTuple):
    """Where the messages of a topic of the dataflow go, and what makes CDR of them."""

    name: str
    kind: Kind
    encode: Callable[[Decoded], bytes]


def exported_topics(
    bridged: Sequence[RosTopic], recorded: Collection[str], chosen: Collection[str] | None
) -> list[RosTopic]:
    """Return what can be exported, each with the recorded topics that have its messages.

    What a dataflow subscribes to has the messages that it publishes itself, too; several outputs
    have the same ones. `chosen` limits the topics of the dataflow.

    Raises:
        RecordingError: there is nothing.
    """
    left: list[RosTopic] = []
    subscribed: set[str] = set()
    for each in sorted(bridged, key=lambda each: each.published):
        topics = [
            topic
            for topic in each.topics
            if topic in recorded and (chosen is None or topic in chosen)
        ]
        if topics and each.name not in subscribed:
            left.append(each._replace(topics=tuple(topics if each.published else topics[:1])))
            if not each.published:
                subscribed.add(each.name)
    if not left:
        raise RecordingError(
            "there is nothing to export: the recording has no message of a topic of ROS 2",
            "topics are those of the nodes with `ros2`",
        )
    return left


def to_ros2(
    recording: Recording,
    target: Path,
    topics: Sequence[RosTopic],
    types: RosTypes,
    *,
    progress: Callable[[int], object] = lambda _: None,
) -> Exported:
    """Write the messages of topics of ROS 2 to a new MCAP file, as ROS 2 itself records them.

    The types are those in the recording, else those that `types` finds. Messages that are not of
    the type of their topic are left out.

    Raises:
        RecordingError: a type is unknown, or there is nothing to write.
        OSError: the file cannot be written.
    """
    channels: dict[str, list[_Channel]] = {}
    for each in topics:
        channel = _channel(each, _message(recording, each, types))
        for topic in each.topics:
            channels.setdefault(topic, []).append(channel)
    left_out: dict[str, LeftOut] = {}
    numbers: dict[str, int] = {}
    file = RecordingFile(target, f"dorad {__version__}", profile=layout.ROS2)
    try:
        for message in recording.messages(topics=frozenset(channels)):
            progress(1)
            for channel in channels[message.topic]:
                try:
                    cdr = channel.encode(message.decode())
                except (ValueError, ConversionError) as error:
                    before = left_out.get(message.topic)
                    if before is None:
                        _log.debug("%s is left out: %s", message.topic, error)
                        before = LeftOut(message.topic, channel.kind.schema_name, 0, str(error))
                    left_out[message.topic] = before._replace(messages=before.messages + 1)
                    continue
                number = numbers[channel.name] = numbers.get(channel.name, 0) + 1
                file.add(channel.name, number, message.time, Encoded(channel.kind, b"", cdr, b""))
                if file.pending >= CHUNK_BYTES:
                    file.flush()
        file.finish()
    finally:
        file.close()
    if not file.messages:
        reasons = [str(each) for each in left_out.values()] or ["it has no messages"]
        raise RecordingError(f"there is nothing to export: {'; '.join(reasons[:3])}")
    missing = recording.damage.missing()
    return Exported([(target, file.messages)], sorted(left_out.values()), missing)


def _message(recording: Recording, topic: RosTopic, types: RosTypes) -> Message:
    """Return the type of a topic. Raises RecordingError."""
    name = definition_name(topic.type)
    recorded = recording.attachment(name)
    try:
        if recorded is None:
            return types.message(topic)
        full = name.removeprefix("ros2/").removesuffix(".msg")
        return parse_definition(full, recorded.decode("utf-8", "replace"))
    except (DefinitionError, SetupError) as error:
        raise RecordingError(
            f"the type of {topic.name} is unknown: {error}", "--ros SETUP names a ROS 2 with it"
        ) from error


def _channel(topic: RosTopic, message: Message) -> _Channel:
    """Return the channel of a topic."""
    text = definition_text(message).encode()
    kind = Kind("cdr", message.name, "ros2msg", text, b"", "")
    _log.debug("%s is written as %s", topic.name, message.name)
    encode_array, has_stamp = encoder(message), stamp_reader(message) is not None

    def encode(content: Decoded) -> bytes:
        cdr = encode_array(content.array)
        if has_stamp and STAMP in content.metadata:
            return with_stamp(cdr, content.array.type, content.metadata[STAMP])
        return cdr

    return _Channel(topic.name, kind, encode)
