"""Screen Rollout: the place for rollouts, until the server offers `rollout.watch`."""

from __future__ import annotations

from dorafleet.console.screens.missing import MissingScreen


class RolloutScreen(MissingScreen):
    """Rollouts."""

    NAME = "rollout"
    METHOD = "rollout.watch"
    ABOUT = (
        "Releases and rollouts are not part of this version.",
        "`dora restart` and `dorafleet restart` start a changed dataflow again.",
    )
