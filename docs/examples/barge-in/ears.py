"""Finds the user's voice in the sound of the microphone."""

from audio import loudness
from dora import Node

MARGIN = 0.1
FRAMES = 3


def main() -> None:
    """Interrupt when the sound is louder than the echo for some frames; count voices."""
    node = Node()
    loud = 0
    voices = {"user": 0, "robot": 0}
    for event in node:
        if event["type"] != "INPUT":
            continue
        metadata = event["metadata"]
        excess = loudness(event["value"].to_numpy()) - metadata["echo"]
        loud = loud + 1 if excess > MARGIN else 0
        if loud == FRAMES:
            voices["user" if metadata["user"] else "robot"] += 1
            interrupt = {"session_id": "assistant", "flush": True, "word": metadata["word"]}
            node.send_output("interrupt", b"", interrupt)
    print(f"interrupted by the user: {voices['user']}, by the robot's own voice: {voices['robot']}")


if __name__ == "__main__":
    main()
