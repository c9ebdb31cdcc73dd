"""The Zenoh session of a link process."""

import json
import os
import sys
from pathlib import Path

from tests.harness.ports import free_port
from tests.harness.process import run
from tests.harness.waiting import DEADLINE_S
from tests.link.certificates import Authority
from tests.link.links import contents

CALLBACKS = 20
MAX_THREADS = 2
"""Zenoh's threads that receive, by default."""


def test_the_interpreter_keeps_its_state_of_a_thread_of_zenoh_between_callbacks(
    tmp_path: Path,
) -> None:
    address = f"tcp/127.0.0.1:{free_port()}"
    done = run(
        [sys.executable, "-m", "tests.link.callbacks", address, str(CALLBACKS)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        deadline=DEADLINE_S,
    ).expect(0)
    found = done.output.split()
    assert len(found) == CALLBACKS
    assert 1 <= found.count("new") <= MAX_THREADS


def test_a_connection_that_zenoh_keeps_ends_with_its_session(tmp_path: Path) -> None:
    """The other machine would believe that it is connected, and not come again."""
    fleet = Authority(tmp_path / "fleet")
    run(
        [
            *(sys.executable, "-m", "tests.link.keeping", f"tls/127.0.0.1:{free_port()}"),
            *(json.dumps(contents(fleet.issue(name))) for name in ("alpha", "beta")),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        deadline=2 * DEADLINE_S,
    ).expect(0)
