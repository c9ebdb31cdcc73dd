"""Sends a hundred arrays of different lengths, with their number and a checksum."""

import zlib

import numpy as np
import pyarrow as pa
from dora import Node

MESSAGES = 100


def main() -> None:
    """Send all messages, then end."""
    node = Node()
    for number in range(MESSAGES):
        values = np.arange(number, dtype=np.int64) + number
        checksum = zlib.crc32((2 * values).tobytes())
        node.send_output("numbers", pa.array(values), {"number": number, "checksum": checksum})


if __name__ == "__main__":
    main()
