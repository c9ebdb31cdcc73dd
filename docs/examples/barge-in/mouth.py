"""Plays frames at the speed of speech, and tells the room what it plays."""

import time
from collections import Counter

from dora import Node

FRAME_S = 0.01
LONG, SHORT = 1120, 20


def main() -> None:
    """Play until the assistant has ended."""
    node = Node()
    reader = node.read_stream("voice")
    played: Counter[int] = Counter()
    for event in node:
        chunk = reader.take(event)
        if chunk is None:
            continue
        time.sleep(FRAME_S)
        played[chunk.segment_id] += 1
        node.send_output("played", chunk.value, {"word": event["metadata"]["word"]})
    right = 0 < played[0] < LONG and played[1] == SHORT
    print(f"played a part of the first sentence, and all of the second: {right}")


if __name__ == "__main__":
    main()
