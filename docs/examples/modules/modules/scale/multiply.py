"""Multiplies numbers by the number in its argument."""

import argparse

import pyarrow as pa
import pyarrow.compute as pc
from dora import Node


def main() -> None:
    """Multiply until the numbers end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--by", type=int, required=True)
    factor = parser.parse_args().by
    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("scaled", pc.multiply(event["value"], pa.scalar(factor)))


if __name__ == "__main__":
    main()
