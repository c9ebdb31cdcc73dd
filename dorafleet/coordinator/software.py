"""The release of a robot for its row: its name, its current change, and why it is busy."""

from dorafleet.coordinator.deployments import name_of
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.releases import Releases
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.rollouts import Rollouts
from dorafleet.coordinator.rows import Software
from dorafleet.rollout.model import MOVING


def software_of(
    id_: str, fleet: Fleet, robots: Robots, rollouts: Rollouts, releases: Releases
) -> Software:
    """Return the known state of the releases on a robot."""
    robot = robots.get(id_)
    states = [state for state in robot.releases.values() if state.running or state.release]
    names = sorted(releases.label(state.running) for state in states if state.running)
    leases = [lease for state in states for lease in state.leases]
    updating, waiting, since = "", "", None
    for rollout in rollouts.open:
        member = rollouts.known_members(rollout.number).get(id_)
        state = robot.releases.get(rollout.dataflow)
        if member is None or not member.in_flight or state is None:
            continue
        moves = state.phase in MOVING
        if leases and state.waiting == "busy":
            waiting = f"rollout {rollout.number} waits: "
            continue
        phase = state.phase if moves else "ordered to switch"
        # Only what a robot says itself is by its clock.
        since = state.since if moves else member.at + robot.skew.seconds
        back = " back" if member.order == "back" else ""
        updating = f"rollout {rollout.number}{back}: {phase}"
    busy = f"{waiting}{leases[0].reason} ({leases[0].owner})" if leases else ""
    if leases and not updating:
        since = leases[0].since
    groups = {name: order.group for name, order in fleet.orders(id_).items()}
    instances = tuple(
        name_of(group.instance, name) for name, group in groups.items() if group is not None
    )
    return Software(", ".join(names), updating, busy, since, instances)
