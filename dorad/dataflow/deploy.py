"""The `deploy` block of a node or dataflow: on which machine, in which directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.dataflow.model import Deploy, Distribute

if TYPE_CHECKING:
    from dorad.dataflow.fields import Fields


def read_deploy(owner: Fields) -> Deploy | None:
    """The block, or None."""
    block = owner.inside("deploy")
    if block is None:
        return None
    deploy = Deploy(
        block.text("machine"),
        block.text_map("labels"),
        block.text("working_dir"),
        block.choice("distribute", Distribute) or Distribute.LOCAL,
    )
    block.finish()
    return deploy
