"""The screens that `:` can go to, and what a line after it means."""

import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dorad.control.messages import FleetRow
from dorad.phrases import first_of
from dorafleet.console.model.targets import Target, dataflows_of, on_robot


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
    Place("logs", "Log lines", "[DATAFLOW [NODE...]]"),
    Place("topics", "Topics of a dataflow", "DATAFLOW"),
    Place("topic", "One topic", "DATAFLOW NODE/OUTPUT"),
    Place("edge", "Ten minutes of an edge", "DATAFLOW NODE/OUTPUT NODE/INPUT"),
    Place("params", "Parameters of nodes", "DATAFLOW NODE"),
    Place("dataflows", "Dataflows that run, and that have ended", ""),
    Place("alerts", "What needs attention", ""),
    Place("rollouts", "The last rollouts, and how each has ended", ""),
    Place("rollout", "A rollout, by default the newest", "[NUMBER]"),
    Place("releases", "Releases that the coordinator has", ""),
    Place("plan", "What a rollout would do", "RELEASE [ROBOT|LABEL=V]"),
    Place("audit", "Who has changed what", ""),
    Place("trace", "The slowest messages, and where their time went", "[DATAFLOW [NODE...]]"),
    Place("help", "Keys and words", ""),
)


MAX_NODES = 6
"""Nodes whose logs are shown side by side."""

MAX_NAMED = 20
"""Dataflows that a message names."""

ABOUT_DATAFLOWS = ("graph", "logs", "topics", "topic", "params", "edge", "trace")
"""Screens whose first word is a dataflow, or a robot."""


def place_of(text: str) -> tuple[str, list[str]] | str:
    """Return the screen and the words that a line after `:` names, or what is wrong with it."""
    from dorad.dataflow.nearest import did_you_mean

    try:
        split = shlex.split(text)
    except ValueError:
        return "a quotation mark is missing"
    if not split:
        return "name a screen: " + " ".join(place.name for place in PLACES)
    name, *rest = split
    names = [place.name for place in PLACES]
    matching = [each for each in names if each.startswith(name)]
    if name in names:
        matching = [name]
    if len(matching) != 1:
        hint = did_you_mean(name, names) or "there are: " + " ".join(names)
        return f"there is no screen `{name}`; {hint}"
    return matching[0], rest


def completions(before: str, rows: Mapping[str, FleetRow], themes: Sequence[str] = ()) -> list[str]:
    """Return the words that may follow a text after `:`: screens, robots, dataflows, `themes`."""
    name, *others = before.split() or [""]
    if not name:
        return [*(place.name for place in PLACES), "theme", "quit"]
    if name == "theme":
        return [] if others else list(themes)
    robots, flows = (
        sorted(rows),
        sorted({flow for row in rows.values() for flow in dataflows_of(row)}),
    )
    if name in ABOUT_DATAFLOWS and not others:
        return flows + robots
    if (name in ("robot", "top") and not others) or (name == "plan" and others):
        return robots
    return []


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

    Parameters are shown of all of them, and the logs of the first few.
    """
    first = targets[0]
    match place:
        case "logs":
            same = [each for each in targets if each.dataflow == first.dataflow]
            names = list(dict.fromkeys(each.node for each in same if each.node))
            return [first.dataflow, *names[:MAX_NODES]] if first.dataflow else []
        case "graph":
            return [first.dataflow, first.node]
        case "trace":
            return [word for word in (first.dataflow, first.node) if word]
        case "params":
            nodes = [each for each in targets if each.dataflow and each.node]
            return [word for each in nodes for word in (each.dataflow, each.node)]
        case "top":
            return [first.robot] if first.robot else []
        case _:
            return [first.dataflow]
