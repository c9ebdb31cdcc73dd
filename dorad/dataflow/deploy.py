"""The `deploy` block: the machines that a node may run on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.dataflow.errors import TextError
from dorad.dataflow.settings import Amounts, Avoid, Deploy, Distribute

if TYPE_CHECKING:
    from dorad.dataflow.fields import Fields

_MAX_CORES = 10_000.0
_MAX_GPUS = 10_000


def read_deploy(owner: Fields) -> Deploy | None:
    """Return the `deploy` block of a node or dataflow, or None."""
    block = owner.inside("deploy")
    if block is None:
        return None
    deploy = Deploy(
        block.text("machine"),
        block.text_map("labels"),
        block.text("working_dir"),
        block.choice("distribute", Distribute) or Distribute.LOCAL,
        read_amounts(block, "needs"),
        _read_avoid(block),
        block.flag("failover") or False,
    )
    block.finish({"resources": "write `needs`"})
    return deploy


def read_amounts(owner: Fields, name: str) -> Amounts:
    """Return a block with amounts of what machines have."""
    block = owner.inside(name, "a mapping such as `{cpu: 2, memory: 1GB}`")
    if block is None:
        return Amounts()
    amounts = Amounts(
        block.number("cpu", minimum=0, maximum=_MAX_CORES),
        block.size("memory"),
        block.integer("gpu", maximum=_MAX_GPUS),
        block.texts("devices", _check_device) if block.has("devices") else None,
    )
    block.ignore("devices")
    block.finish()
    return amounts


def _read_avoid(owner: Fields) -> Avoid:
    block = owner.inside("avoid", "a mapping with `machines`, `nodes` or both")
    if block is None:
        return Avoid()
    avoid = Avoid(block.texts("machines"), block.texts("nodes"))
    block.finish()
    return avoid


def _check_device(text: str) -> None:
    if not text or not text.isprintable() or any(each.isspace() for each in text):
        raise TextError("a device is a path or another name, without blanks", "/dev/video0")
