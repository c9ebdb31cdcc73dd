"""Flies a mission: arm, take off to two metres, land."""

from collections.abc import Callable

import pyarrow as pa
from dora import Node
from pymavlink.dialects.v20 import common as mav

HEIGHT_M = 2.0


class Pilot:
    """Sends commands, and waits for what the vehicle says."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def wait(self, output: str, holds: Callable[[dict], bool]) -> dict:
        """Return the first message of an output for which something holds."""
        for event in self._node:
            if event["type"] == "INPUT" and event["id"] == output:
                message = event["value"][0].as_py()
                if holds(message):
                    return message
        raise SystemExit(f"the vehicle has gone while the pilot waited for its {output}")

    def command(self, number: int, **params: float) -> None:
        """Send a command; fail unless the vehicle accepts it."""
        request = pa.array([{"command": number, **params}])
        event = self._node.call("command", request, timeout=30, reply="ack")
        result = event["value"][0].as_py()["result"]
        if result != mav.MAV_RESULT_ACCEPTED:
            raise SystemExit(f"the vehicle refuses command {number}: {result}")


def main() -> None:
    """Fly."""
    pilot = Pilot(Node())
    pilot.wait("heartbeat", lambda beat: beat["type"] == mav.MAV_TYPE_QUADROTOR)
    print("connected to a quadrotor")
    pilot.command(mav.MAV_CMD_COMPONENT_ARM_DISARM, param1=1.0)
    print("armed")
    pilot.command(mav.MAV_CMD_NAV_TAKEOFF, param7=HEIGHT_M)
    pilot.wait("position", lambda position: position["z"] < -HEIGHT_M + 0.01)
    print(f"at {HEIGHT_M:.0f} m")
    pilot.command(mav.MAV_CMD_NAV_LAND)
    armed = mav.MAV_MODE_FLAG_SAFETY_ARMED
    pilot.wait("heartbeat", lambda beat: not beat["base_mode"] & armed)
    print("landed and disarmed")


if __name__ == "__main__":
    main()
