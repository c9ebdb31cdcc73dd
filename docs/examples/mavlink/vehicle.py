"""A simulated quadrotor: one dimension, a fixed speed, and the messages of an autopilot."""

import os
import sys

os.environ["MAVLINK20"] = "1"
from dora import Node
from pymavlink import mavutil
from pymavlink.dialects.v20 import common as mav

STEP_M = 0.05
HEARTBEAT_TICKS = 10
LAST_TICKS = 50


class Vehicle:
    """State of the vehicle, changed by commands and by time."""

    def __init__(self, connection) -> None:
        self._connection = connection
        self._armed = False
        self._height = self._target = 0.0
        self.landed_ticks = 0

    def command(self, message) -> None:
        """Carry out one command, and acknowledge it."""
        result = mav.MAV_RESULT_ACCEPTED
        if message.command == mav.MAV_CMD_COMPONENT_ARM_DISARM:
            self._armed = message.param1 == 1
        elif message.command == mav.MAV_CMD_NAV_TAKEOFF and self._armed:
            self._target = message.param7
        elif message.command == mav.MAV_CMD_NAV_LAND and self._armed:
            self._target = 0.0
        else:
            result = mav.MAV_RESULT_DENIED
        self._connection.mav.command_ack_send(message.command, result)

    def step(self, tick: int) -> None:
        """Move for one tick, and send where the vehicle is."""
        way = self._target - self._height
        self._height += max(-STEP_M, min(STEP_M, way))
        if way and self._height == self._target == 0.0:
            self._armed = False
            self.landed_ticks = 1
        elif self.landed_ticks:
            self.landed_ticks += 1
        self._connection.mav.local_position_ned_send(tick * 20, 0, 0, -self._height, 0, 0, 0)
        if tick % HEARTBEAT_TICKS == 0:
            armed = mav.MAV_MODE_FLAG_SAFETY_ARMED if self._armed else 0
            self._connection.mav.heartbeat_send(
                mav.MAV_TYPE_QUADROTOR, mav.MAV_AUTOPILOT_GENERIC, armed, 0, mav.MAV_STATE_ACTIVE
            )


def main() -> None:
    """Fly, and end a second after the landing."""
    connection = mavutil.mavlink_connection(sys.argv[1], source_system=1, dialect="common")
    vehicle = Vehicle(connection)
    for tick, event in enumerate(Node()):
        if event["type"] != "INPUT" or vehicle.landed_ticks == LAST_TICKS:
            break
        while message := connection.recv_match(blocking=False):
            if message.get_type() == "COMMAND_LONG":
                vehicle.command(message)
        vehicle.step(tick)


if __name__ == "__main__":
    main()
