"""The report on a dataflow that failed: root causes first, consequences as a count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dorad.daemon.rules.exits import Outcome
from dorad.logs.excerpt import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dorad.daemon.rules.exits import Result

MAX_NAMES = 8
"""Nodes named that failed only because of another."""


@dataclass(frozen=True, slots=True)
class Block:
    """One failure: a headline, and what the node said on stderr."""

    headline: str
    lines: tuple[str, ...] = ()


def failure_report(results: Iterable[Result]) -> tuple[Block, ...]:
    """Return one block for each root cause, in the order in which they happened.

    Empty if all went well. Nodes that failed only because another one did are named in one last
    block, without what they wrote.
    """
    results = tuple(results)
    blocks = [
        Block(f"node {result.node} {result.reason}", excerpt(result.stderr))
        for result in results
        if not result.ok and result.outcome is not Outcome.CASCADING
    ]
    cascading = [result for result in results if result.outcome is Outcome.CASCADING]
    culprits = {result.root_cause for result in cascading}
    blocks += [
        Block(
            f"node {result.node} {result.reason} before it called Node(), "
            "so the dataflow could not start",
            excerpt(result.stderr),
        )
        for result in results
        if result.ok and result.node in culprits
    ]
    if cascading:
        nodes = "node" if len(cascading) == 1 else "nodes"
        names = ", ".join(result.node for result in cascading[:MAX_NAMES])
        more = ", ..." if len(cascading) > MAX_NAMES else ""
        text = f"{len(cascading)} other {nodes} failed because of that: {names}{more}"
        blocks.append(Block(text))
    return tuple(blocks)
