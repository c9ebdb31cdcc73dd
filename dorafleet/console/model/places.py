"""The screens that `:` can go to, and what a line after it means."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple

from dorad.phrases import first_of
from dorafleet.console.model.targets import dataflows_of, on_robot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dorad.control.messages import FleetRow
    from dorafleet.console.model.targets import Target


class Place(NamedTuple):
    """A screen that `:` can go to."""

    name: str
    title: str
    words: str
    """What may follow, for help."""


PLACES: tuple[Place, ...] = (
    Place("fleet", "All robots", "[FILTER]"),
    Place("robot", "One robot", "ROBOT"),
    Place("graph", "A dataflow as a graph", "DATAFLOW [NODE]"),
    Place("top", "Nodes and edges", "[ROBOT]"),
    Place("logs", "Log lines", "[DATAFLOW [NODE]]"),
    Place("topics", "Topics of a dataflow", "DATAFLOW"),
    Place("topic", "One topic", "DATAFLOW NODE/OUTPUT"),
    Place("params", "Parameters of nodes", "DATAFLOW NODE"),
    Place("dataflows", "Dataflows that run, and that have ended", ""),
    Place("alerts", "What needs attention", ""),
    Place("rollouts", "The last rollouts, and how each has ended", ""),
    Place("rollout", "A rollout, by default the newest", "[NUMBER]"),
    Place("releases", "Releases that the coordinator has", ""),
    Place("plan", "What a rollout would do", "RELEASE [ROBOT|LABEL=V]"),
    Place("audit", "Who has changed what", ""),
    Place("trace", "Message traces, which no server offers yet", ""),
    Place("help", "Keys and words", ""),
)


MAX_NAMED = 20
"""Dataflows that a message names."""

ABOUT_DATAFLOWS = ("graph", "logs", "topics", "topic", "params")
"""Screens whose first word is a dataflow, or a robot."""


def place_of(text: str) -> tuple[str, list[str]] | str:
    """Return the screen and the words that a line after `:` names, or what is wrong with it."""
    from dorad.dataflow.nearest import did_you_mean

    try:
        found = shlex.split(text)
    except ValueError:
        return "a quotation mark is missing"
    if not found:
        return "name a screen: " + " ".join(place.name for place in PLACES)
    name, *rest = found
    names = [place.name for place in PLACES]
    matching = [each for each in names if each.startswith(name)]
    if name in names:
        matching = [name]
    if len(matching) != 1:
        hint = did_you_mean(name, names) or "there are: " + " ".join(names)
        return f"there is no screen `{name}`; {hint}"
    return matching[0], rest


def with_dataflow(name: str, words: Sequence[str], rows: Mapping[str, FleetRow]) -> list[str] | str:
    """Return the words after a screen's name; a robot stands for the dataflow that it runs.

    Return a text if the robot runs several, or the fleet and none is named: which one is meant
    must be said.
    """
    if name == "logs" and not words:
        known = sorted({each for row in rows.values() for each in dataflows_of(row)})
        if len(known) > 1:
            there = first_of(known, MAX_NAMED)
            return f"name a dataflow, such as `logs {known[0]}`; there are: {there}"
        return known
    row = rows.get(words[0]) if words and name in ABOUT_DATAFLOWS else None
    if row is None or not row.dataflow:
        return list(words)
    first, *others = dataflows_of(row)
    if others:
        return f"`{row.robot}` runs {row.dataflow}: name one, such as `{name} {row.robot}/{first}`"
    return [on_robot(row.robot, first), *words[1:]]


def words_about(place: str, targets: Sequence[Target]) -> list[str]:
    """Return the words after a screen's name that lead to the first of these targets.

    Parameters are shown of all of them.
    """
    first = targets[0]
    match place:
        case "logs":
            return [word for word in (first.dataflow, first.node) if first.dataflow and word]
        case "graph":
            return [first.dataflow, first.node]
        case "params":
            nodes = [each for each in targets if each.dataflow and each.node]
            return [word for each in nodes for word in (each.dataflow, each.node)]
        case "top":
            return [first.robot] if first.robot else []
        case _:
            return [first.dataflow]
