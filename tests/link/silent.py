"""A machine `beta` that is there and never answers, as if messages passed in one direction only.

Argument: the address of alpha. Prints a line each time alpha's link process appears or vanishes.
"""

import json
import sys

import zenoh

from dorad.link.access import root_of


def main() -> None:
    """Be there until the input is closed."""
    config = zenoh.Config()
    config.insert_json5("connect/endpoints", json.dumps([sys.argv[1]]))
    config.insert_json5("listen/endpoints", "[]")
    config.insert_json5("scouting/multicast/enabled", "false")
    root = root_of("test-flow")
    with zenoh.open(config) as session:
        liveliness = session.liveliness()
        liveliness.declare_subscriber(
            f"{root}/alive/alpha/*",
            lambda sample: print(sample.key_expr, sample.kind, flush=True),
            history=True,
        )
        token = liveliness.declare_token(f"{root}/alive/beta/{7:016x}")
        sys.stdin.read()
        token.undeclare()


if __name__ == "__main__":
    main()
