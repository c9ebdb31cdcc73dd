"""The Zenoh session of a link process."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from tests.harness.ports import free_port
from tests.harness.process import run
from tests.harness.waiting import DEADLINE_S

if TYPE_CHECKING:
    from pathlib import Path

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
