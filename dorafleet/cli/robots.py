"""Rows, problems and JSON of robots as their coordinator knows them, for `dorafleet status`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from dorad.commandline.tables import age, plain
from dorad.control.messages import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dorafleet.coordinator.deploymentmessages import DeploymentInfo, DeploymentInstance
    from dorafleet.coordinator.messages import Robot

COLUMNS = ("Machine", "Host", "State", "Seen", "Skew", "Version", "Dataflows", "Problem")

MAX_ROWS = 50
"""Robots that are listed one by one; of a larger fleet only those with problems are."""
MAX_FLOWS = 10
"""Dataflows in the summary of a larger fleet, in each of their states."""

MAX_NUMBER = 1_000_000
"""Of a larger generation only the last six digits are shown."""

_OVER = ("stopped", "finished")

MAX_SKEW_S = 1.0
"""Differences of clocks below this are shown in milliseconds."""


def is_well(robot: Robot) -> bool:
    """Return True if a robot is connected, and nothing on it is a failure."""
    failed = any(each.severity == "fail" for each in findings_of(robot))
    return robot.state == "connected" and not failed


def findings_of(robot: Robot) -> list[Finding]:
    """Return what is wrong with a robot, failures first."""
    if robot.findings is not None:
        return robot.findings
    text = "what is wrong with it is not known: its coordinator has an earlier version"
    hint = "upgrade the coordinator"
    return [Finding("old-coordinator", "robot", text, "fail", 0.0, hint=hint)]


def problems_of(robot: Robot) -> list[str]:
    """Return what is wrong with a robot, in words."""
    return [words_of(each) for each in findings_of(robot)]


def words_of(finding: Finding) -> str:
    """Return what a finding says, with its dataflow: two may have a node of the same name."""
    if finding.dataflow is None or finding.dataflow in finding.text:
        return finding.text
    return f"{finding.text} (dataflow {finding.dataflow})"


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
        "; ".join(problems_of(robot)),
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
    exceptions = [robot for robot in robots if not is_well(robot) or problems_of(robot)]
    # Those with a problem come first, each in the order of the cluster file.
    exceptions.sort(key=is_well)
    return exceptions[:MAX_ROWS], max(0, len(exceptions) - MAX_ROWS)


def skew_text(seconds: float) -> str:
    """Return a difference of clocks as text, such as `+2s`; small ones in milliseconds."""
    if abs(seconds) < MAX_SKEW_S:
        return f"{seconds * 1e3:+.0f}ms"
    return ("+" if seconds > 0 else "-") + age(abs(seconds))


def as_plain(
    robots: Iterable[Robot], deployments: Iterable[DeploymentInfo]
) -> list[dict[str, Any]]:
    """Return what `--json` prints: the coordinator's data, with the problems, and of what each runs
    or is to run.
    """
    runs: dict[str, list[dict[str, Any]]] = {}
    for each in deployments:
        for one in each.instances:
            row = {
                "deployment": each.name,
                "instance": address(each, one),
                "source": each.source,
                "release": one.release,
                "state": one.state,
            }
            for robot in one.robots:
                runs.setdefault(robot, []).append(row)
    return [
        {
            **plain(robot),
            "well": is_well(robot),
            "problems": problems_of(robot),
            "deployments": runs.get(robot.id, []),
        }
        for robot in robots
    ]


def address(each: DeploymentInfo, one: DeploymentInstance) -> str:
    """Return how commands name an instance: `NAME` for the only one over all robots."""
    return (
        each.name
        if each.source != "release" or each.scope == "one"
        else f"{one.instance}/{each.name}"
    )
