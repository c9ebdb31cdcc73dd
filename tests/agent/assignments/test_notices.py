"""Which warnings of the daemon concern a release on probation."""

import pytest

from dorad.agent.assignments.queries import notices_about
from tests.cli.fakedaemon import daemon_status

UUID = "00000000-0000-4000-8000-000000000009"


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("dataflow pick is not started: no such file", True),
        (f"dataflow {UUID}: its nodes are started again", True),
        ("dataflow pick: this version of dora uses another format", True),
        ("dataflow pick-2 is not started: no such file", False),
        ("dataflow pick.left is not started", False),
        ("dataflow map is not started: it reads pick", False),
        ("the state cannot be written to the disk: no space left", False),
        ("ended 2 processes of unknown dataflows", False),
    ],
)
def test_only_warnings_about_the_dataflow_itself_count(text, own):
    assert notices_about(daemon_status(notices=[text]), "pick", UUID) == ([text] if own else [])


def test_that_no_node_can_be_started_concerns_every_dataflow():
    found = notices_about(daemon_status(problem="systemd is not reachable"), "pick", UUID)
    assert found == ["systemd is not reachable"]
