"""What operators do to single nodes, in the audit: their robots do it, not the coordinator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dorafleet.coordinator.writing import actor_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.control.messages import Struct
    from dorad.control.server import Call, Handler, StreamHandler
    from dorafleet.coordinator.writing import Writer

RECORDED = ("node.restart", "node.stop")
"""Methods that get a record before they are passed on."""
MAX_NAME = 300
"""Characters of a name in the audit."""


def recorded(
    table: Mapping[str, Handler | StreamHandler], writer: Writer
) -> dict[str, Handler | StreamHandler]:
    """Return handlers that write a record before a node is changed."""
    return {**table, **{name: _recorded(table[name], writer) for name in RECORDED}}


async def write_record(writer: Writer, call: Call, **names: str) -> None:
    """Write into the audit what a client does to a node, by names such as `dataflow` and `node`.

    Raises ControlError or StoreError.
    """
    cut = {what: name[:MAX_NAME] for what, name in names.items()}
    record = {**actor_of(call), "action": call.method, **cut}
    async with writer.changing:
        await writer.commit(record)


def _recorded(inner: Any, writer: Writer) -> Handler:
    async def handler(call: Call, params: Any) -> Struct:
        await write_record(writer, call, dataflow=params.dataflow or "", node=params.node)
        result: Struct = await inner(call, params)
        return result

    return handler
