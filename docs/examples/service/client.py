"""Asks the calculator, then receives its other inputs."""

import pyarrow as pa
from dora import Node
from dora.patterns import RemoteError


def main() -> None:
    """Ask three times, then receive a tick that came meanwhile."""
    node = Node()
    for dividend, divisor in ((84, 2), (91, 7), (1, 0)):
        try:
            event = node.call("question", pa.array([dividend, divisor]), timeout=30)
            print(f"{dividend} / {divisor} = {event['value'][0]}")
        except RemoteError as error:
            print(f"{dividend} / {divisor} failed: {error}")
    event = node.next()
    print(f"then came a {event['id']}")


if __name__ == "__main__":
    main()
