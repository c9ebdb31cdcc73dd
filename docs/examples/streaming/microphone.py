"""Sends a second of quiet noise, then a word."""

import numpy as np
import pyarrow as pa
from dora import Node

RATE = 16_000
SAMPLES = 320
QUIET = 50
WORD = 20


def main() -> None:
    """Send 20 ms of sound at each tick: noise, or noise and a tone."""
    node = Node()
    noise = np.random.default_rng(1)
    time = np.arange(SAMPLES) / RATE
    for number in range(QUIET + WORD):
        if node.next()["type"] != "INPUT":
            break
        sound = noise.normal(0, 0.01, SAMPLES)
        if number >= QUIET:
            sound += 0.5 * np.sin(2 * np.pi * 220 * time)
        node.send_output("sound", pa.array(sound.astype(np.float32)))


if __name__ == "__main__":
    main()
