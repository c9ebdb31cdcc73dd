"""Python's `logging` in a node: what its lines carry."""

import json
import subprocess
import sys

from dorad.logs.format import formatter
from dorad.logs.record import parse_line

SOURCE = """
import logging
from dorad.node import logbridge

logbridge.bridge("cam")
logging.basicConfig(level=logging.INFO)
logging.getLogger("arm").warning("hot: %d", 81)
"""


def test_the_source_of_a_record_stands_beside_its_message() -> None:
    [line] = subprocess.run(
        [sys.executable, "-c", SOURCE], capture_output=True, check=True
    ).stdout.splitlines()
    record = parse_line(line, "cam", "stdout", 0.0)
    shown = json.loads(formatter("json", dataflow_id="d")(record))
    assert {key: shown[key] for key in ("level", "target", "message", "file", "line")} == {
        "level": "WARN",
        "target": "arm",
        "message": "hot: 81",
        "file": "<string>",
        "line": 7,
    }
    assert shown["fields"] is None
