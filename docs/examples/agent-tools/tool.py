"""A tool of the agent; the command line says which one."""

import json
import sys

import pyarrow as pa
from dora import Node

TOOLS = {
    "shout": ("makes text loud", str.upper),
    "calculator": ("adds numbers", lambda text: str(sum(map(int, text.split())))),
}


def main() -> None:
    """Offer the tool at each tick, and answer the requests with its name."""
    name = sys.argv[1]
    ability, function = TOOLS[name]
    node = Node()
    for event in node:
        if event["type"] != "INPUT":
            continue
        if event["id"] == "tick":
            node.send_output("offer", pa.array([ability]))
            continue
        request = json.loads(event["value"][0].as_py())
        if request["tool"] == name:
            answer = pa.array([function(request["argument"])])
            node.send_service_response("answer", answer, event["metadata"])


if __name__ == "__main__":
    main()
