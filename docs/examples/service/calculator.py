"""Answers requests to divide numbers."""

import pyarrow as pa
from dora import Node


def main() -> None:
    """Answer requests until the dataflow ends."""
    node = Node()

    def divide(event):
        dividend, divisor = event["value"].to_pylist()
        return pa.array([dividend // divisor])

    node.serve("question", "answer", divide)


if __name__ == "__main__":
    main()
