"""A service that a command starts in the background."""

from pathlib import Path

import psutil
import pytest

from dorad.commandline.detached import start_detached


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
