"""Simulates the gantry: after each command it says where the hand and the cubes are."""

import mujoco
import numpy as np
import pyarrow as pa
from dora import Node

STEPS = 10
"""Of 2 ms, for each command."""
REST_M = 0.2
"""How high the hand is when the joint of its height is at 0."""
BODIES = ("hand", "cube0", "cube1", "cube2")


class Simulator:
    """The table, the gantry and the cubes."""

    def __init__(self) -> None:
        self._model = mujoco.MjModel.from_xml_path("scene.xml")
        self._data = mujoco.MjData(self._model)
        mujoco.mj_forward(self._model, self._data)

    def obey(self, command: np.ndarray) -> None:
        """Move towards a position (x, y, z) and an opening of the fingers, in metres."""
        x, y, z, opening = command
        self._data.ctrl[:] = x, y, z - REST_M, opening, opening
        mujoco.mj_step(self._model, self._data, nstep=STEPS)

    def state(self) -> np.ndarray:
        """Return the positions of the hand and of the cubes, three numbers each."""
        return np.concatenate([self._data.body(name).xpos for name in BODIES])


def main() -> None:
    """Send a state, and another one after each command."""
    node = Node()
    simulator = Simulator()
    node.send_output("state", pa.array(simulator.state()))
    for event in node:
        if event["type"] == "INPUT":
            simulator.obey(event["value"].to_numpy())
            node.send_output("state", pa.array(simulator.state()))


if __name__ == "__main__":
    main()
