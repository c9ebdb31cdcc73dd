"""Check what robots report: everything that grows is bounded, and every number can be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from dorad.control.errors import ControlError

if TYPE_CHECKING:
    from dorad.control.messages import DataflowState
    from dorad.control.messages.agent import Attached, ShareState
    from dorad.control.messages.releases import ReleaseState

MAX_SHARES = 1000
"""Shares of one robot, and dataflows in one report."""

MAX_NAME = 200
"""Characters of a dataflow's name."""

MAX_TEXT = 200_000
"""Characters of all that a robot says about one release."""

MAX_REASON = 1000
"""Characters of one reason or line."""

MAX_RESULTS = 1000
"""Results of nodes, and links to machines, of one share."""

MAX_FAILURES = 20
"""Failures of one dataflow, and lines of one failure."""

MAX_CORES = 1_000_000

MAX_TIME = 253_402_300_799.0
"""The end of the year 9999, in seconds since 1970: no later time can be shown."""


def shown_time(at: float) -> float:
    """Return the time that can be shown which is nearest."""
    return min(max(at, 0.0), MAX_TIME)


def check_attached(attached: Attached) -> None:
    """Raise ControlError for the first answer of an agent that cannot be."""
    texts = (attached.version, attached.boot_id, attached.arch, attached.audit)
    if max(map(len, texts)) > MAX_REASON:
        raise ControlError("bad-request", "its first answer has texts that are too long")
    if abs(attached.time) > MAX_TIME:
        raise ControlError("bad-request", f"its clock shows {attached.time:g} s since 1970")
    if not 0 <= attached.cores <= MAX_CORES or attached.memory < 0:
        raise ControlError(
            "bad-request", f"it has {attached.cores:g} cores and {attached.memory} bytes of memory"
        )


def checked_shares(shares: list[ShareState]) -> list[ShareState]:
    """Return shares with bounded texts. Raise ControlError for shares that cannot be."""
    if len(shares) > MAX_SHARES:
        raise ControlError("bad-request", f"a report with more than {MAX_SHARES} dataflows")
    for share in shares:
        names = share.dataflow, share.uuid
        if (
            not all(0 < len(name) <= MAX_NAME for name in names)
            or min(share.generation, share.epoch) < 0
            or abs(share.since) > MAX_TIME
            or len(share.links) > MAX_RESULTS
        ):
            raise ControlError("bad-request", f"a report of a share that cannot be: {share!r:.200}")
    return [
        msgspec.structs.replace(
            share,
            reason=share.reason[:MAX_REASON],
            links={
                name: msgspec.structs.replace(link, reason=link.reason[:MAX_REASON])
                for name, link in share.links.items()
            },
            outcome=None if share.outcome is None else _bounded(share.outcome),
        )
        for share in shares
    ]


def _bounded(outcome: DataflowState) -> DataflowState:
    """Return the results of a share with bounded texts; what is beyond is left out."""
    replace = msgspec.structs.replace
    return replace(
        outcome,
        results=[
            replace(each, node=each.node[:MAX_NAME], reason=each.reason[:MAX_REASON])
            for each in outcome.results[:MAX_RESULTS]
        ],
        failures=[
            replace(
                each,
                headline=each.headline[:MAX_REASON],
                lines=[line[:MAX_REASON] for line in each.lines[-MAX_FAILURES:]],
            )
            for each in outcome.failures[:MAX_FAILURES]
        ],
        links={},
    )


def check_releases(releases: list[ReleaseState]) -> None:
    """Raise ControlError for states of releases that cannot be, or are too large."""
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
