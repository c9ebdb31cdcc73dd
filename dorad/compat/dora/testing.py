"""Helpers for testing nodes: `MockNode`, and `replay` of recordings with its `ReplayControl`."""

from dorad.node.offline.replaying import ReplayedDifferentlyError, replay
from dorad.node.offline.testing import MockNode
from dorad.record.replay.client import ReplayControl

__all__ = ["MockNode", "ReplayControl", "ReplayedDifferentlyError", "replay"]
