"""Asks two questions, and prints the answers."""

import pyarrow as pa
from dora import Node

QUESTIONS = ["what does the robot do", "what does the camera see"]


def main() -> None:
    """Ask, and collect words until the answer is complete."""
    node = Node()
    reader = node.read_stream("words")
    missing = 0
    for question in QUESTIONS:
        print(f"user: {question}")
        node.send_output("question", pa.array([question]))
        words: list[str] = []
        for event in node:
            chunk = reader.take(event)
            if chunk is None:
                continue
            missing += chunk.missing
            words.append(chunk.value[0].as_py())
            if chunk.fin:
                break
        print("model:", *words)
    print(f"{len(QUESTIONS)} answers, no word is missing: {missing == 0}")


if __name__ == "__main__":
    main()
