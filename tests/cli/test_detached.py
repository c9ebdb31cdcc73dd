"""A service that a command starts in the background."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
import pytest

from dorad.cli.detached import start_detached

if TYPE_CHECKING:
    from pathlib import Path


def test_ctrl_c_before_it_answers_ends_it(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def ask() -> None:
        if log.read_text():
            raise KeyboardInterrupt

    code = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    (tmp_path / "endless.py").write_text(code)
    with pytest.raises(KeyboardInterrupt):
        start_detached("it", ["endless"], log, ask, timeout=60, env={"PYTHONPATH": str(tmp_path)})
    assert not psutil.pid_exists(int(log.read_text()))
