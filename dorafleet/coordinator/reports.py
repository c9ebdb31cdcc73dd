"""Check what robots report: everything that grows is bounded, every number is possible."""

from collections.abc import Iterable, Mapping

import msgspec

from dorad.control.errors import ControlError
from dorad.control.messages.agent import AgentReport, Attached, SecretsHeld, ShareState
from dorad.control.messages.releases import ReleaseState

MAX_SHARES = 1000
"""Shares of one robot, and dataflows in one report."""

MAX_NAME = 200
"""Characters of a dataflow's name, and of each text about the robot itself."""

MAX_STATE = 512 << 10
"""Bytes of one share or release in a report, as JSON."""

MAX_STATES = 8 << 20
"""Bytes of all shares and releases of a robot."""

MAX_USUAL = 64 << 10
"""Bytes of a state that is kept whole; of a longer one only the main parts are kept."""

MAX_SECRETS = 200
"""Secrets of a robot, and those that it refuses."""

MAX_COUNT = 1 << 53

MAX_BYTES = 1 << 62
"""Of a disk."""

MAX_WARNINGS = 20
"""Warnings in a report."""
MAX_SECONDS = 1e11
"""Some thousand years after 1970: sums of accepted times are valid times, too."""

Sizes = dict[tuple[str, str], int]
"""Bytes of each state that is kept of a robot, by its kind and the name of its dataflow."""


def check_attached(attached: Attached) -> None:
    """Raise ControlError if a first answer is impossible or too large."""
    texts = (
        attached.version,
        attached.boot_id,
        attached.machine_id,
        attached.audit,
        attached.arch,
        attached.python,
        attached.glibc,
    )
    if max(map(len, texts)) > MAX_NAME:
        raise ControlError("bad-request", "a name or a version in the answer is too long")
    if not (0 <= attached.cores <= 1e6 and 0 <= attached.memory <= MAX_COUNT):
        raise ControlError("bad-request", "a robot with an impossible number of cores, or memory")
    check_time(attached.time)
    check_shares(attached.shares)
    check_releases(attached.releases)
    check_secrets(attached.secrets)


def check_secrets(held: SecretsHeld) -> None:
    """Raise ControlError if a robot has too many secrets; shorten its reasons."""
    if max(len(held.held), len(held.refused)) > MAX_SECRETS:
        raise ControlError("bad-request", f"a robot with more than {MAX_SECRETS} secrets")
    held.refused = {name[:MAX_NAME]: text[:MAX_NAME] for name, text in held.refused.items()}


def check_report(report: AgentReport) -> None:
    """Raise ControlError if a report is impossible or too large."""
    check_time(report.time)
    if report.room is not None and not 0 <= report.room <= MAX_BYTES:
        raise ControlError("bad-request", f"a report of an impossible disk: {report.room:g} B")
    if len(report.warnings) > MAX_WARNINGS:
        raise ControlError("bad-request", f"a report with more than {MAX_WARNINGS} warnings")
    check_shares(report.shares)
    check_releases(report.releases)
    if len(report.removed) > MAX_SHARES:
        raise ControlError("bad-request", f"a report with more than {MAX_SHARES} dataflows")


def check_time(seconds: float) -> None:
    """Raise ControlError if a time is impossible."""
    if not -MAX_SECONDS <= seconds <= MAX_SECONDS:
        raise ControlError("bad-request", f"a report of an impossible time: {seconds:g}")


def check_shares(shares: list[ShareState]) -> None:
    """Raise ControlError for invalid shares."""
    if len(shares) > MAX_SHARES:
        raise ControlError("bad-request", f"a report with more than {MAX_SHARES} dataflows")
    for share in shares:
        if not 0 < len(share.dataflow) <= MAX_NAME or share.generation < 0 or share.epoch < 0:
            raise ControlError("bad-request", f"a report of an impossible share: {share!r:.200}")
        check_time(share.since)


def check_releases(releases: list[ReleaseState]) -> None:
    """Raise ControlError for impossible states of releases."""
    if len(releases) > MAX_SHARES:
        raise ControlError("bad-request", f"a report with more than {MAX_SHARES} dataflows")
    for each in releases:
        numbers = each.generation, each.epoch, each.sequence
        if (
            not 0 < len(each.dataflow) <= MAX_NAME
            or not 0 <= min(numbers) <= max(numbers) < 1 << 62
            or max(map(len, (each.release, each.running, each.confirmed, each.previous))) > MAX_NAME
        ):
            raise ControlError("bad-request", f"a report of an impossible release: {each!r:.200}")
        for seconds in (each.since, *(t for e in each.leases for t in (e.since, e.expires or 0.0))):
            check_time(seconds)


def sizes_after(
    sizes: Sizes, shares: Iterable[ShareState], releases: Iterable[ReleaseState]
) -> Sizes:
    """Return the sizes of what is kept of a robot after a report.

    Raises:
        ControlError: it is too large.
    """
    states: Mapping[tuple[str, str], ShareState | ReleaseState] = {
        **{("share", each.dataflow): each for each in shares},
        **{("release", each.dataflow): each for each in releases},
    }
    if not states:
        return sizes
    after = dict(sizes)
    for key, state in states.items():
        after[key] = len(msgspec.json.encode(state))
        if after[key] > MAX_STATE:
            raise ControlError("bad-request", f"a report of `{key[1]}` is too large")
    if len(after) > 2 * MAX_SHARES:
        raise ControlError("bad-request", f"reports of more than {2 * MAX_SHARES} dataflows")
    if sum(after.values()) > MAX_STATES:
        raise ControlError("bad-request", f"reports of more than {MAX_STATES} bytes")
    return after
