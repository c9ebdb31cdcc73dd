"""Alerts in the order in which they need an operator."""

from collections.abc import Iterable

from dorad.control.messages import Alert, Finding

AWAY = ("unreachable", "never-connected")
"""Causes of findings about robots without contact."""


def by_need(alerts: Iterable[Alert]) -> list[Alert]:
    """Return unacknowledged alerts first, the worst and newest of them first."""
    return sorted(
        alerts, key=lambda each: (bool(each.acked_by), each.severity != "fail", -each.since)
    )


def new_count(alerts: Iterable[Alert]) -> int:
    """Return the number of unacknowledged alerts."""
    return sum(not each.acked_by for each in alerts)


def where(alert: Alert) -> str:
    """Return the robot of an alert, or how many robots it has."""
    return alert.robots[0] if alert.count == 1 and alert.robots else f"{alert.count} robots"


def state_of(problem: Alert | Finding) -> str:
    """Return the state of robots that have this problem."""
    return "unreach" if problem.cause in AWAY else problem.severity
