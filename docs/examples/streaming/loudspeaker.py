"""Plays chunks in real time: here it only waits, and counts."""

import time
from collections import Counter

from dora import Node

SECONDS = 0.01


def main() -> None:
    """Play every chunk, then print how much of each segment was heard."""
    node = Node()
    reader = node.read_stream("audio")
    heard = Counter()
    for event in node:
        chunk = reader.take(event)
        if chunk is None:
            continue
        if chunk.flush:
            print(f"{chunk.session_id}: cut off")
        heard[chunk.session_id, chunk.segment_id] += 1
        time.sleep(SECONDS)
    for (session, segment), chunks in sorted(heard.items()):
        print(f"{session}, segment {segment}: {chunks} chunks heard")


if __name__ == "__main__":
    main()
