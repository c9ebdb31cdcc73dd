"""Shorten a robot's report of a share or a release, so that it fits into a frame.

A dataflow may have a thousand nodes that all fail, or are busy. That must not cut off its robot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

if TYPE_CHECKING:
    from dorad.control.messages.agent import ShareState
    from dorad.control.messages.releases import ReleaseState

KEPT_FAILURES, KEPT_LINES, KEPT_LINKS = 20, 10, 100
KEPT_EVIDENCE, KEPT_LEASES, KEPT_NODES = 200, 50, 1000
"""Maximum number of entries of a list in a shortened state."""

MAX_TEXT, MAX_NAME = 300, 200
"""Characters of a text, and of a name, in such a state."""


def short_share(share: ShareState, usual: int) -> ShareState:
    """Return a share of at most `usual` bytes as it is, of a longer one the main parts."""
    if len(msgspec.json.encode(share)) <= usual:
        return share
    outcome = share.outcome
    if outcome is not None:
        failures = [
            replace(
                each,
                headline=each.headline[:MAX_TEXT],
                lines=[line[:MAX_TEXT] for line in each.lines[-KEPT_LINES:]],
            )
            for each in outcome.failures[:KEPT_FAILURES]
        ]
        results = [
            replace(each, reason=each.reason[:MAX_TEXT]) for each in outcome.results[:KEPT_NODES]
        ]
        outcome = replace(outcome, failures=failures, results=results, links={})
    links = dict(list(share.links.items())[:KEPT_LINKS])
    links = {name: replace(link, reason=link.reason[:MAX_TEXT]) for name, link in links.items()}
    return replace(share, reason=share.reason[:MAX_TEXT], links=links, outcome=outcome)


def _shorter(texts: dict[str, str]) -> dict[str, str]:
    first = [*texts.items()][:KEPT_EVIDENCE]
    return {name[:MAX_NAME]: text[:MAX_TEXT] for name, text in first}


def short_release(state: ReleaseState, usual: int) -> ReleaseState:
    """Return a state of at most `usual` bytes as it is, of a longer one the main parts."""
    if len(msgspec.json.encode(state)) <= usual:
        return state
    # Problems come first.
    evidence = sorted(state.evidence, key=lambda each: each.ok)[:KEPT_EVIDENCE]
    return replace(
        state,
        reason=state.reason[:MAX_TEXT],
        failed=_shorter(state.failed),
        ended=_shorter(state.ended),
        rollout=state.rollout[:MAX_NAME],
        evidence=[
            replace(each, check=each.check[:MAX_TEXT], text=each.text[:MAX_TEXT])
            for each in evidence
        ],
        leases=[
            replace(
                each,
                id=each.id[:MAX_NAME],
                reason=each.reason[:MAX_TEXT],
                owner=each.owner[:MAX_TEXT],
            )
            for each in state.leases[:KEPT_LEASES]
        ],
        restarted=[name[:MAX_NAME] for name in state.restarted[:KEPT_NODES]],
    )
