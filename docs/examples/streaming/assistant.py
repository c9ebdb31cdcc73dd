"""Speaks faster than the loudspeaker plays, and stops when it is interrupted."""

import numpy as np
import pyarrow as pa
from dora import Node

SAMPLES = 320
SENTENCE = 300
MUSIC = 60
REPLY = 5


def main() -> None:
    """Send a long sentence and, between its chunks, music; then react to an interruption."""
    node = Node()
    voice = node.open_stream("audio", "voice")
    music = node.open_stream("audio", "music")
    chunk = pa.array(np.zeros(SAMPLES, np.float32))
    for number in range(SENTENCE):
        voice.send(chunk)
        if number % (SENTENCE // MUSIC) == 0:
            music.send(chunk)
    music.close(chunk)
    for event in node:
        if event["type"] == "INPUT" and voice.react(event):
            print("interrupted")
            voice.flush(chunk)
            for number in range(1, REPLY):
                voice.send(chunk, fin=number == REPLY - 1)


if __name__ == "__main__":
    main()
