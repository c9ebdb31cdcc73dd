"""The log of dorad's own work: decisions, packets and handovers at level debug."""

import logging
import re
import signal
from pathlib import Path

import pytest

from dorad.ownlog import VisibleFormatter
from tests.cli.running import dora, write
from tests.harness.daemon import daemon
from tests.harness.flows import counting, seen
from tests.harness.waiting import wait_until

ONE_NODE = "nodes: [{id: one, path: one.py}]"
SCRIPT = "from dora import Node; Node()"

EXPECTED = (
    "supervisor: decided: OpenBarrier()",
    "sessions: from node one: 'ready'",
    "connection: to process",
    "link: process",
    "noderunner: node one exited: exited with code 0",
)
"""A decision, a packet from a node, one to a node, a process, and its end."""


def test_a_run_logs_its_decisions_at_level_debug(tmp_path: Path) -> None:
    write(tmp_path, ONE_NODE, one=SCRIPT)
    with dora(tmp_path, "dataflow.yml", env={"DORAD_LOG_LEVEL": "debug"}) as run:
        run.end(0)
        for text in EXPECTED:
            assert text in run.err, text
        assert all(re.match(r"\S+ \S+ DEBUG dorad\.", line) for line in run.err.splitlines())


def test_a_run_logs_no_decisions_by_default(tmp_path: Path) -> None:
    write(tmp_path, ONE_NODE, one=SCRIPT)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(0)
        assert run.err == ""


def test_a_text_of_a_robot_forges_no_line_and_controls_no_terminal() -> None:
    text = "no\n2026-01-01 00:00:00 ERROR forged \x1b]0;title\x07\u202e"
    record = logging.LogRecord("dorad", logging.WARNING, "", 0, "refused: %s", (text,), None)
    first, second = VisibleFormatter("%(levelname)s %(message)s").format(record).split("\n")
    assert first == "WARNING refused: no"
    assert second == r"    2026-01-01 00:00:00 ERROR forged \x1b]0;title\x07\u202e"


def test_an_unknown_level_is_refused(tmp_path: Path) -> None:
    write(tmp_path, ONE_NODE, one=SCRIPT)
    with dora(tmp_path, "dataflow.yml", env={"DORAD_LOG_LEVEL": "loud"}) as run:
        run.end(1)
        assert run.err == (
            "error: DORAD_LOG_LEVEL='loud': must be one of debug, info, warning, error\n"
        )


@pytest.mark.timeout(120)
def test_the_daemons_configuration_switches_it_on_and_off(tmp_path: Path) -> None:
    config = tmp_path / "dorad.toml"
    config.write_text('[daemon]\nlog_level = "debug"\n')
    with daemon() as dorad:
        dorad.end()
        dorad.start("--config", str(config))
        dorad.dora_ok("start", counting(tmp_path), "--name", "flow", "--detach")
        wait_until(lambda: seen(tmp_path))
        dorad.kill()
        dorad.start("--config", str(config))
        for text in (
            "session: process",
            "supervisor: decided: OpenBarrier()",
            "sessions: node sink is adopted",
        ):
            assert f"DEBUG dorad.{'control' if 'session' in text else 'daemon'}." in dorad.log
            assert text in dorad.log, text
        config.write_text('[daemon]\nlog_level = "info"\n')
        dorad.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the configuration was reloaded" in dorad.log)
        lines = dorad.log.count("DEBUG")
        dorad.dora_ok("stop", "flow")
        assert dorad.log.count("DEBUG") == lines


@pytest.mark.timeout(120)
def test_the_command_line_and_the_environment_override_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "dorad.toml"
    config.write_text('[daemon]\nlog_level = "error"\n')
    with daemon() as dorad:
        dorad.end()
        for arguments, level in ((["-v"], "info"), ([], "debug")):
            before = dorad.log.count("DEBUG dorad.control.session")
            dorad.env["DORAD_LOG_LEVEL"] = level
            dorad.start("--config", str(config), *arguments)
            assert dorad.log.count("DEBUG dorad.control.session") > before
            dorad.end()
