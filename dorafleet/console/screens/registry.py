"""Which class each screen has, imported only when it is opened."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorafleet.console.screens.base import ConsoleScreen

_CLASSES = {
    "fleet": ("fleet", "FleetScreen"),
    "robot": ("robot", "RobotScreen"),
    "top": ("top", "TopScreen"),
    "logs": ("logs", "LogsScreen"),
    "topics": ("topics", "TopicsScreen"),
    "topic": ("topic", "TopicScreen"),
    "dataflows": ("dataflows", "DataflowsScreen"),
    "params": ("params", "ParamsScreen"),
    "releases": ("releases", "ReleasesScreen"),
    "plan": ("plan", "PlanScreen"),
    "graph": ("graph", "GraphScreen"),
    "alerts": ("alerts", "AlertsScreen"),
    "rollouts": ("rollouts", "RolloutsScreen"),
    "rollout": ("rollout", "RolloutScreen"),
    "audit": ("audit", "AuditScreen"),
    "trace": ("trace", "TraceScreen"),
    "help": ("help", "HelpScreen"),
}


def open_screen(name: str, words: Sequence[str]) -> ConsoleScreen | str:
    """Return the screen with this name about these words, or why there is none."""
    module, attribute = _CLASSES[name]
    kind = getattr(importlib.import_module(f"dorafleet.console.screens.{module}"), attribute)
    found: ConsoleScreen | str = kind.about(words)
    return found
