"""Checks number and checksum of every message, and that all have come."""

import sys
import zlib

from dora import Node

MESSAGES = 100


def main() -> None:
    """Exit with an error at the first message that is wrong."""
    count = numbers = total = 0
    for event in Node():
        if event["type"] != "INPUT":
            continue
        values, metadata = event["value"].to_numpy(), event["metadata"]
        if metadata["number"] != count:
            sys.exit(f"message {count} is missing: {metadata['number']} came")
        if zlib.crc32(values.tobytes()) != metadata["checksum"]:
            sys.exit(f"message {count}: its checksum is wrong")
        count, numbers, total = count + 1, numbers + len(values), total + int(values.sum())
    if count != MESSAGES:
        sys.exit(f"{count} of {MESSAGES} messages came")
    print(f"{count} messages, {numbers} numbers, sum {total}: valid")


if __name__ == "__main__":
    main()
