"""What operators do to single nodes, in the audit: their robots do it, not the coordinator."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dorad.control.errors import ControlError
from dorad.control.messages import Param, ParamRef, ParamSet, Struct
from dorad.control.paramtext import json_text
from dorad.control.server import Call, Handler, StreamHandler
from dorad.phrases import shorten
from dorafleet.coordinator.messages import METHODS
from dorafleet.coordinator.writer import Writer, actor_of

MAX_NAME = 300
"""Characters of a name in the audit."""
MAX_VALUE = 200
"""Characters of the value of a parameter in the audit, as JSON."""


def recorded(
    table: Mapping[str, Handler | StreamHandler], writer: Writer
) -> dict[str, Handler | StreamHandler]:
    """Return handlers that write a record before a node is changed."""
    names = [name for name in table if METHODS[name].record == "names"]
    return {**table, **{name: _recorded(table[name], writer) for name in names}}


async def write_record(writer: Writer, call: Call, **names: str) -> None:
    """Write into the audit what a client does to a node, by names such as `dataflow` and `node`.

    Raises ControlError or StoreError.
    """
    cut = {what: name[:MAX_NAME] for what, name in names.items()}
    record = {**actor_of(call), "action": call.method, **cut}
    async with writer.changing:
        await writer.commit(record)


async def values_of(
    params: ParamSet | ParamRef, get: Callable[[ParamRef], Awaitable[Param]]
) -> dict[str, str]:
    """Return the `old` and the `new` value of a parameter that will be changed, for its record.

    `get` asks the node's robot for the old one. Without a value, that part is left out: it has
    none, or the robot's software cannot tell. Raises ControlError.
    """
    values: dict[str, str] = {}
    known = None
    try:
        known = await get(ParamRef(node=params.node, key=params.key, dataflow=params.dataflow))
    except ControlError as error:
        if error.code not in ("not-found", "unknown-method", "unsupported"):
            raise
    if known is not None:
        values["old"] = shorten(json_text(known.value), MAX_VALUE)
    if isinstance(params, ParamSet):
        values["new"] = shorten(json_text(params.value), MAX_VALUE)
    elif known is not None and known.declared:
        values["new"] = shorten(json_text(known.default), MAX_VALUE)
    return values


def _recorded(inner: Any, writer: Writer) -> Handler:
    async def handler(call: Call, params: Any) -> Struct:
        await write_record(writer, call, dataflow=params.dataflow or "", node=params.node)
        result: Struct = await inner(call, params)
        return result

    return handler
