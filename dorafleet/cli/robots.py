"""Rows, problems and JSON of robots as their coordinator knows them, for `dorafleet status`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from dorad.cli.tables import age, plain
from dorad.phrases import first_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dorad.control.messages.agent import ShareState
    from dorad.control.messages.releases import ReleaseState
    from dorafleet.coordinator.messages import Robot

COLUMNS = ("Machine", "Host", "State", "Seen", "Skew", "Version", "Dataflows", "Problem")

MAX_NAMED = 3
"""Nodes in one problem."""
MAX_ROWS = 50
"""Robots that are listed one by one; of a larger fleet only those with problems are."""
MAX_FLOWS = 10
"""Dataflows in the summary of a larger fleet, in each of their states."""

MAX_NUMBER = 1_000_000
"""Of a larger generation only the last six digits are shown."""

_OVER = ("stopped", "finished")

MAX_SKEW_S = 1.0
"""Seconds by which a robot's clock may be wrong before that is a problem."""


def is_well(robot: Robot) -> bool:
    """Return True if a robot is connected and has no problems."""
    return robot.state == "connected" and not problems_of(robot)


def problems_of(robot: Robot) -> list[str]:
    """Return the problems of a robot, in a few words each."""
    problems = [f"{name}: {why}" for name, why in sorted(robot.conflicts.items())]
    if robot.conflicts:
        problems.append(f"choose `dorafleet adopt {robot.id}` or `dorafleet resume {robot.id}`")
    elif robot.reason:
        problems.append(robot.reason)
    if robot.outranked:
        problems.append(f"`dorafleet takeover {robot.id}` if this is the right coordinator")
    if robot.clone:
        problems.append(robot.clone)
    if robot.audit:
        problems.append(f"audit: {robot.audit} (`dorafleet audit acknowledge {robot.id}`)")
    if robot.revoked:
        problems.append(f"it knows of revocations that the store lacks: {', '.join(robot.revoked)}")
    for share in robot.shares:
        if share.status in ("failed", "pending"):
            reason = f": {share.reason}" if share.reason else ""
            problems.append(f"{share.dataflow} {share.status}{reason}")
        if share.status == "running":
            problems += [f"{share.dataflow}: no link to {name}" for name in links_down(share)]
    for release in robot.releases:
        if trouble := release_trouble(release):
            problems.append(f"{release.dataflow} {trouble}")
    return problems


def release_trouble(release: ReleaseState) -> str:
    """Return why a dataflow from releases does not run as it was confirmed; empty if it does."""
    if release.phase == "stuck":
        return f"stuck: {release.reason}"
    if release.phase == "reverted":
        return f"went back to what it ran before: {release.reason}"
    # In other phases it may have been stopped for a switch; without a reason it is not to run.
    if release.phase == "confirmed" and not release.running and release.reason:
        return f"does not run: {release.reason}"
    if down := {**release.failed, **release.ended}:
        return first_of((f"node {name} {text}" for name, text in down.items()), MAX_NAMED)
    return ""


def links_down(share: ShareState) -> dict[str, str]:
    """Return the machines to which a share has no link, each with the reason."""
    return {
        name: peer.reason or peer.state
        for name, peer in sorted(share.links.items())
        if peer.state != "up"
    }


def as_row(robot: Robot) -> tuple[str, ...]:
    """Return a robot's row under `COLUMNS`."""
    shares = [
        f"{share.dataflow} {share.status} ({_number(share.generation)})"
        for share in robot.shares
        if share.status not in _OVER
    ]
    shares += [
        f"{release.dataflow} {release.phase} ({release.running[:12] or 'none'})"
        for release in robot.releases
    ]
    shares += [f"{name} (local)" for name in robot.local]
    return (
        robot.id,
        robot.host,
        robot.state,
        "-" if robot.age is None else f"{age(robot.age)} ago",
        "-" if robot.age is None else skew_text(robot.skew),
        robot.version or "-",
        ", ".join(shares) or "none",
        "; ".join([*problems_of(robot), *robot.warnings]),
    )


def _number(generation: int) -> str:
    """Return a generation for people: after a restore it has thirteen digits."""
    return str(generation) if generation < MAX_NUMBER else f"…{generation % MAX_NUMBER:06d}"


def summary_lines(robots: Sequence[Robot]) -> list[str]:
    """Return how many robots are in each state, and what they run, in a few lines."""
    states = Counter(robot.state for robot in robots)
    parts = [f"{count} {state}" for state, count in states.most_common()]
    well = sum(map(is_well, robots))
    lines = [f"{len(robots)} machines: {', '.join(parts)}; {well} are well"]
    running = Counter(
        f"{share.dataflow} {share.status}"
        for robot in robots
        for share in robot.shares
        if share.status not in _OVER
    )
    running.update(
        f"{release.dataflow} {release.phase} ({release.running[:12] or 'none'})"
        for robot in robots
        for release in robot.releases
    )
    running.update(f"{name} (local)" for robot in robots for name in robot.local)
    lines += [f"{text}: {count} machines" for text, count in running.most_common(MAX_FLOWS)]
    if len(running) > MAX_FLOWS:
        lines.append(f"and {len(running) - MAX_FLOWS} other states of dataflows")
    return lines


def exceptions(robots: Sequence[Robot]) -> tuple[list[Robot], int]:
    """Return the robots that are not well, or have warnings, and how many more there are."""
    exceptions = [robot for robot in robots if not is_well(robot) or robot.warnings]
    # Those with a problem come first, each in the order of the cluster file.
    exceptions.sort(key=is_well)
    return exceptions[:MAX_ROWS], max(0, len(exceptions) - MAX_ROWS)


def skew_text(seconds: float) -> str:
    """Return a difference of clocks as text, such as `+2s`; small ones in milliseconds."""
    if abs(seconds) < MAX_SKEW_S:
        return f"{seconds * 1e3:+.0f}ms"
    return ("+" if seconds > 0 else "-") + age(abs(seconds))


def as_plain(robots: Iterable[Robot]) -> list[dict[str, Any]]:
    """Return what `--json` prints: the coordinator's data, with the problems."""
    return [
        {**plain(robot), "well": is_well(robot), "problems": problems_of(robot)} for robot in robots
    ]
