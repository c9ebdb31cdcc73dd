"""Python's `logging` in a node: the content of its lines."""

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


def test_a_record_has_its_source_besides_its_message() -> None:
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


def _lines(source: str) -> list[tuple[str, str | None, str]]:
    """What a node's source logs after `Node()`: level, target and message of each line."""
    begin = "import logging, sys\nfrom dorad.node import logbridge\nlogbridge.bridge('cam')\n"
    ended = subprocess.run(
        [sys.executable, "-c", begin + source], capture_output=True, check=True, text=True
    )
    assert ended.stderr == ""
    records = [json.loads(line) for line in ended.stdout.splitlines()]
    return [(each["level"], each.get("target"), each["message"]) for each in records]


def test_records_of_level_info_and_above_are_shown_without_configuration() -> None:
    assert _lines("logging.debug('d'); logging.info('i'); logging.error('e')") == [
        ("info", "root", "i"),
        ("error", "root", "e"),
    ]


def test_records_of_named_loggers_are_shown_without_configuration() -> None:
    source = "log = logging.getLogger('arm'); log.debug('d'); log.info('i'); log.warning('w')"
    assert _lines(source) == [("info", "arm", "i"), ("warn", "arm", "w")]


def test_a_module_level_call_sets_the_root_logger_to_level_0_as_under_dora() -> None:
    assert _lines("logging.info('i'); logging.critical(str(logging.root.level))") == [
        ("info", "root", "i"),
        ("error", "root", "0"),
    ]


def test_a_given_level_is_kept() -> None:
    both = "logging.debug('d'); logging.info('i'); logging.warning('w')"
    assert _lines(f"logging.basicConfig(level=logging.WARNING); {both}") == [("warn", "root", "w")]
    assert [line[2] for line in _lines(f"logging.basicConfig(level=logging.DEBUG); {both}")] == [
        *"diw"
    ]


def test_a_level_set_before_the_node_is_kept() -> None:
    source = """
import logging
logging.getLogger().setLevel(logging.ERROR)
from dorad.node import logbridge
logbridge.bridge("cam")
logging.getLogger("arm").warning("w")
print(logging.root.level)
"""
    ended = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, check=True, text=True
    )
    assert ended.stdout == "40\n"


def test_a_log_stream_that_the_node_configures_is_used() -> None:
    source = """
import logging, sys
from dorad.node import logbridge
logbridge.bridge("cam")
logging.basicConfig(stream=sys.stdout, level=logging.INFO)
logging.info("i")
"""
    ended = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, check=True, text=True
    )
    assert ended.stdout == "INFO:root:i\n"


def test_a_line_of_a_signal_handler_that_interrupts_a_print_is_printed() -> None:
    source = """
import signal, sys
from dorad.node import logbridge

class Reentrant:
    def write(self, text):
        raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stdout>'>")
    def fileno(self):
        return 1

sys.stdout = Reentrant()
logbridge.emit("line")
sys.stdout = sys.__stdout__
"""
    ended = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, check=True, text=True
    )
    assert ended.stdout == "line\n"
