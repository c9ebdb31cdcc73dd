"""Check what robots report: everything that grows is bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.control.errors import ControlError

if TYPE_CHECKING:
    from dorad.control.messages.agent import ShareState
    from dorad.control.messages.releases import ReleaseState

MAX_SHARES = 1000
"""Shares of one robot, and dataflows in one report."""

MAX_NAME = 200
"""Characters of a dataflow's name."""

MAX_TEXT = 200_000
"""Characters of a robot's report about one release."""


def check_shares(shares: list[ShareState]) -> None:
    """Raise ControlError for invalid shares."""
    if len(shares) > MAX_SHARES:
        raise ControlError("bad-request", f"a report with more than {MAX_SHARES} dataflows")
    for share in shares:
        if not 0 < len(share.dataflow) <= MAX_NAME or share.generation < 0 or share.epoch < 0:
            raise ControlError("bad-request", f"a report of a share that cannot be: {share!r:.200}")


def check_releases(releases: list[ReleaseState]) -> None:
    """Raise ControlError for states of releases that are invalid or too large."""
    if len(releases) > MAX_SHARES:
        raise ControlError("bad-request", f"a report with more than {MAX_SHARES} dataflows")
    for each in releases:
        name, numbers = each.dataflow, (each.generation, each.epoch, each.sequence)
        texts = [each.reason, *(text for e in each.evidence for text in (e.check, e.text))]
        texts += [text for lease in each.leases for text in (lease.id, lease.reason, lease.owner)]
        texts += [each.release, each.running, each.confirmed, each.previous, *each.restarted]
        sizes = len(each.evidence), len(each.leases), len(each.restarted)
        if not 0 < len(name) <= MAX_NAME or min(numbers) < 0:
            raise ControlError(
                "bad-request", f"a report of a release that cannot be: {each!r:.200}"
            )
        if max(sizes) > MAX_SHARES or sum(map(len, texts)) > MAX_TEXT:
            raise ControlError("bad-request", f"a report of `{name}` is too large")
