"""The release of a robot for its row: its name, its current change, and why it is busy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorafleet.coordinator.rows import Software
from dorafleet.rollout.model import MOVING

if TYPE_CHECKING:
    from dorafleet.coordinator.releases import Releases
    from dorafleet.coordinator.robots import Robots
    from dorafleet.coordinator.rollouts import Rollouts


def software_of(id_: str, robots: Robots, rollouts: Rollouts, releases: Releases) -> Software:
    """Return the known state of the releases on a robot."""
    robot = robots.get(id_)
    states = [state for state in robot.releases.values() if state.running or state.release]
    names = sorted(releases.label(state.running) for state in states if state.running)
    updating = ""
    for rollout in rollouts.open:
        member = rollouts.known_members(rollout.number).get(id_)
        state = robot.releases.get(rollout.dataflow)
        if member is None or not member.in_flight or state is None:
            continue
        phase = state.phase if state.phase in MOVING else "ordered to switch"
        back = " back" if member.order == "back" else ""
        updating = f"rollout {rollout.number}{back}: {phase}"
    leases = [lease for state in states for lease in state.leases]
    busy = f"{leases[0].reason} ({leases[0].owner})" if leases else ""
    return Software(", ".join(names), updating, busy)
