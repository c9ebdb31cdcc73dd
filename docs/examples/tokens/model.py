"""Answers questions word by word, with the words that follow each other in corpus.txt."""

import random
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
from dora import Node

MAX_WORDS = 12


def train(text: str) -> dict[str, list[str]]:
    """Return which words follow each word."""
    followers: dict[str, list[str]] = defaultdict(list)
    words = text.split()
    for word, follower in pairwise(words):
        followers[word].append(follower)
    return followers


def answer(question: str, followers: dict[str, list[str]]) -> Iterator[str]:
    """Yield the words of an answer, which begins with the subject of the question."""
    yield "the"
    word = next(each for each in question.split() if each in followers and each != "the")
    for _ in range(MAX_WORDS):
        yield word
        word = random.choice(followers[word])
        if word == ".":
            break


def main() -> None:
    """Send the words of each answer as a segment of one stream."""
    followers = train(Path("corpus.txt").read_text(encoding="utf-8"))
    node = Node()
    with node.open_stream("words", "model") as stream:
        for event in node:
            if event["type"] == "INPUT":
                for word in answer(event["value"][0].as_py(), followers):
                    stream.send(pa.array([word]))
                stream.send(pa.array(["."]), fin=True)


if __name__ == "__main__":
    main()
