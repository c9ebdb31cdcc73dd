"""Speaks a long sentence, and a short one when it is interrupted."""

import pyarrow as pa
from audio import tone
from dora import Node

VOICE_HZ = 180.0
LONG = "I will now explain everything that I know about cups, shelves and their history"
WORDS = LONG.split()
FRAMES_A_WORD = 80
SHORT = 20


def main() -> None:
    """Send the long sentence at once, then wait for an interruption."""
    node = Node()
    voice = node.open_stream("voice", "assistant")
    for number in range(len(WORDS) * FRAMES_A_WORD):
        voice.send(pa.array(tone(VOICE_HZ, number)), {"word": number // FRAMES_A_WORD})
    for event in node:
        if event["type"] == "INPUT" and voice.react(event):
            heard = WORDS[: event["metadata"]["word"] + 1]
            print(f'interrupted after "{" ".join(heard)}"')
            voice.flush(pa.array(tone(VOICE_HZ, 0)), {"word": 0})
            for number in range(1, SHORT):
                last = number == SHORT - 1
                voice.send(pa.array(tone(VOICE_HZ, number)), {"word": 0}, fin=last)
            break


if __name__ == "__main__":
    main()
