"""The messages of the installed ROS 2 as types: `ros2/sensor_msgs/Image`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from dorad.dataflow.types.model import Field, ListOf, Named, Scalar, Shape, Struct, TypeDef
from dorad.dataflow.types.ports import ROS2, bridged_types, named_types
from dorad.ros2.definitions import DefinitionError, Definitions, Item, Message, Number
from dorad.ros2.environment import SetupError, installed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dorad.dataflow.model import Dataflow

_log = logging.getLogger(__name__)

_ARROW = {"bool": "Boolean", "float32": "Float32", "float64": "Float64"}


def installations(
    dataflow: Dataflow | None, environ: Mapping[str, str]
) -> list[Definitions | SetupError]:
    """Return the messages of each installation that the bridges of a dataflow name.

    Without a bridge it is the one that a bridge would choose. In place of an installation that
    cannot be used is the reason.
    """
    nodes = () if dataflow is None else dataflow.nodes
    setups = dict.fromkeys(node.ros2.setup for node in nodes if node.ros2 is not None)
    folder = Path() if dataflow is None else dataflow.path.parent
    return [_definitions(setup, folder, environ) for setup in setups or (None,)]


def _definitions(
    setup: str | None, folder: Path, environ: Mapping[str, str]
) -> Definitions | SetupError:
    try:
        return installed(setup, folder, environ)
    except SetupError as error:
        _log.debug("no messages of ROS 2: %s", error)
        return error


def bridged_messages(dataflow: Dataflow) -> list[str]:
    """Return the messages that the bridges of a dataflow carry."""
    return [
        urn
        for node in dataflow.nodes
        for kind in ("subscribe", "publish")
        for urn in bridged_types(node, kind).values()
    ]


def messages_of(dataflow: Dataflow, environ: Mapping[str, str]) -> dict[str, TypeDef]:
    """Return the messages that ports name or bridges carry, with all messages in them, by URN.

    Those that are not installed are left out: the check of types reports them where they matter.
    """
    named = (urn for urn in named_types(dataflow) if urn.startswith(ROS2))
    wanted = {*named, *bridged_messages(dataflow)}
    types: dict[str, TypeDef] = {}
    for definitions in installations(dataflow, environ):
        for urn in sorted(wanted - types.keys()):
            if isinstance(definitions, Definitions):
                try:
                    types = {**type_defs(definitions.message(urn.removeprefix(ROS2))), **types}
                except DefinitionError as error:
                    _log.debug("no type %s: %s", urn, error)
    return types


def all_messages(definitions: Definitions, problems: list[str]) -> Iterator[TypeDef]:
    """Yield every message of an installation; append what is wrong with others to `problems`."""
    for name in definitions.names():
        try:
            message = definitions.message(name)
        except DefinitionError as error:
            problems.append(str(error))
        else:
            yield _type_def(message)


def why_missing(urn: str, places: Sequence[Definitions | SetupError]) -> str:
    """Return why no installation has a message."""
    reasons = []
    for place in places:
        if isinstance(place, SetupError):
            reasons.append(str(place))
            continue
        try:
            place.message(urn.removeprefix(ROS2))
        except DefinitionError as error:
            reasons.append(str(error))
    return f"there is no type `{urn}`: {'; '.join(dict.fromkeys(reasons))}"


def type_defs(message: Message) -> dict[str, TypeDef]:
    """Return the type of a message and of all messages in it, by URN."""
    parts: dict[str, Message] = {}
    pending = [message]
    while pending:
        item = pending.pop()
        if item.name not in parts:
            parts[item.name] = item
            pending += [each.item for each in item.fields if isinstance(each.item, Message)]
    return {_urn(item): _type_def(item) for item in parts.values()}


def _type_def(message: Message) -> TypeDef:
    fields = tuple(Field(each.name, _shape(each.item, each.many)) for each in message.fields)
    return TypeDef(_urn(message), Struct(fields), f"the message {message.name} of ROS 2")


def _urn(message: Message) -> str:
    package, _, name = message.name.split("/")
    return f"{ROS2}{package}/{name}"


def _shape(item: Item, many: object | None) -> Shape:
    if isinstance(item, Message):
        shape: Shape = Named(_urn(item))
    elif isinstance(item, Number):
        shape = Scalar(
            _ARROW.get(item.name, item.name.replace("uint", "UInt").replace("int", "Int"))
        )
    else:
        shape = Scalar("Utf8")
    return shape if many is None else ListOf(shape)
