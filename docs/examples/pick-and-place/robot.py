"""Picks one cube after the other, looks whether it has it, and places it on the tray."""

import numpy as np
import pyarrow as pa
from dora import Node

STEP_S = 0.02
STEP_M = 0.008
"""How far the hand moves in a step, at most."""
NEAR_M = 0.003
HIGH_M, GRASP_M, PLACE_M = 0.2, 0.02, 0.032
OPEN_M, CLOSED_M = 0.035, 0.01
GRIP_STEPS = 15
MAX_STEPS = 500
MAX_TRIES = 3
SLOTS = (0.2, 0.3), (0.3, 0.3), (0.4, 0.3)
"""On the tray."""


class Robot:
    """Moves the hand, step by step."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._receive()
        self._target = self._state[:3].copy()
        self._opening = OPEN_M
        self.steps = 0

    def cube(self, number: int) -> np.ndarray:
        """Return the position of a cube."""
        return self._state[3 * number + 3 :][:3]

    def move(self, x: float, y: float, z: float) -> None:
        """Move the hand straight to a position, in metres."""
        goal = np.array([x, y, z])
        for _ in range(MAX_STEPS):
            way = goal - self._target
            self._target = self._target + way * min(1.0, STEP_M / max(np.linalg.norm(way), STEP_M))
            self._step()
            if np.linalg.norm(self._state[:3] - goal) < NEAR_M:
                return
        raise RuntimeError(f"the hand does not reach {goal}, it is at {self._state[:3]}")

    def grip(self, opening: float) -> None:
        """Open or close the fingers."""
        self._opening = opening
        for _ in range(GRIP_STEPS):
            self._step()

    def _step(self) -> None:
        self._node.send_output("command", pa.array([*self._target, self._opening]))
        self._receive()
        self.steps += 1

    def _receive(self) -> None:
        event = self._node.next(timeout=60)
        if event is None or event["type"] != "INPUT":
            raise SystemExit(f"no state has come: {event}")
        self._state = event["value"].to_numpy()


def pick(robot: Robot, number: int) -> bool:
    """Lift a cube; return whether the hand has it."""
    x, y, _ = robot.cube(number)
    robot.move(x, y, HIGH_M)
    robot.move(x, y, GRASP_M)
    robot.grip(CLOSED_M)
    robot.move(x, y, HIGH_M)
    if robot.cube(number)[2] > HIGH_M / 2:
        return True
    robot.grip(OPEN_M)
    return False


def place(robot: Robot, number: int, slot: tuple[float, float]) -> bool:
    """Put the cube in the hand on the tray; return whether it stays there."""
    robot.move(*slot, HIGH_M)
    robot.move(*slot, PLACE_M)
    robot.grip(OPEN_M)
    robot.move(*slot, HIGH_M)
    return bool(np.linalg.norm(robot.cube(number) - (*slot, PLACE_M)) < 0.01)


def main() -> None:
    """Place each cube in a slot of its own."""
    robot = Robot(Node())
    placed = 0
    for number, slot in enumerate(SLOTS):
        for _ in range(MAX_TRIES):
            if pick(robot, number):
                placed += place(robot, number, slot)
                break
            print(f"cube {number} has slipped")
    seconds = robot.steps * STEP_S
    print(f"placed {placed} of {len(SLOTS)} cubes in {seconds:.1f} s of simulated time")


if __name__ == "__main__":
    main()
