"""Simulates the microphone: it hears the robot's voice, noise, and a user who interrupts."""

import numpy as np
import pyarrow as pa
from audio import FRAME, loudness, tone
from dora import Node

ECHO, NOISE, USER_HZ = 0.3, 0.01, 320.0
USER_FRAMES = range(90, 130)


def main() -> None:
    """Send a frame of sound for each frame that the mouth plays."""
    node = Node()
    rng = np.random.default_rng(3)
    number = 0
    for event in node:
        if event["type"] != "INPUT":
            continue
        echo = ECHO * event["value"].to_numpy()
        sound = echo + rng.normal(0, NOISE, FRAME)
        if number in USER_FRAMES:
            sound += tone(USER_HZ, number)
        metadata = {
            "word": event["metadata"]["word"],
            "echo": loudness(echo),
            "user": number in USER_FRAMES,  # to check the ears, which do not look at it
        }
        node.send_output("sound", pa.array(sound.astype(np.float32)), metadata)
        number += 1


if __name__ == "__main__":
    main()
