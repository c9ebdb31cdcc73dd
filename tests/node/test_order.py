"""The order between the inputs of a node: they take turns, as those of dora 1.1.0 do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.node.fakedaemon import FakeDaemon, attached
from tests.node.test_stepping import START, push

Phases = list[tuple[str, int]]
"""Messages that are sent, by their inputs, and how many the node takes before the next ones."""

DORA = {
    "c0 b0 a0 c1 b1 a1 c2 b2 c3 b3 c4 b4 b5": ("cba", [("bc", 2), ("bbbcacab", 3), ("cbc", 8)]),
    "c0 b0 a0 b1 a1 b2 c1 b3 b4 b5 b6": ("cba", [("abbbcb", 2), ("bab", 4), ("cb", 5)]),
    "b0 a0 c0 b1 a1 c1 a2 c2 c3 b2 c4 b3 c5": ("bac", [("bac", 3), ("bcacac", 6), ("bcbc", 4)]),
}
"""What a node of dora 1.1.0 has received, whose order at first is by chance."""


def received(folder: Path, first: Sequence[str], phases: Phases) -> list[str]:
    """Return what a node takes, whose inputs have this order in the file."""
    daemon = FakeDaemon(folder, dict.fromkeys(first, 50), {})
    taken: list[str] = []
    counts: dict[str, int] = {}
    try:
        with attached(daemon) as node:
            for sent, wanted in phases:
                for name in sent:
                    push(daemon, name, START)
                for _ in range(wanted):
                    event = node.receiver.try_recv()
                    assert event is not None
                    number = counts[event["id"]] = counts.get(event["id"], -1) + 1
                    taken.append(f"{event['id']}{number}")
    finally:
        daemon.close()
    return taken


def in_turns(first: Sequence[str], phases: Phases) -> list[str]:
    """Return what a node takes if the input that was served longest ago is next."""
    order, waiting = list(first), dict.fromkeys(first, 0)
    taken, counts = [], dict.fromkeys(first, 0)
    for sent, wanted in phases:
        for name in sent:
            waiting[name] += 1
        for _ in range(wanted):
            name = next(each for each in order if waiting[each])
            order.remove(name)
            order.append(name)
            waiting[name] -= 1
            taken.append(f"{name}{counts[name]}")
            counts[name] += 1
    return taken


@pytest.mark.parametrize(("expected", "scene"), DORA.items(), ids=DORA)
def test_inputs_take_turns_as_in_dora(
    tmp_path: Path, expected: str, scene: tuple[str, Phases]
) -> None:
    assert in_turns(*scene) == expected.split()
    assert received(tmp_path, *scene) == expected.split()


@given(st.permutations("abc"), st.data())
@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
def test_the_input_that_was_served_longest_ago_is_next(
    tmp_path_factory: pytest.TempPathFactory, first: list[str], data: st.DataObject
) -> None:
    phases: Phases = []
    waiting = 0
    for sent in data.draw(st.lists(st.text("abc", max_size=9), max_size=5)):
        waiting += len(sent)
        wanted = data.draw(st.integers(0, waiting))
        waiting -= wanted
        phases.append((sent, wanted))
    folder = tmp_path_factory.mktemp("n")
    assert received(folder, first, phases) == in_turns(first, phases)
