"""Measured programs end by themselves or by their deadline."""

import sys
import time

import psutil
import pytest

from hwtests.bench.process import MeasurementError, environment, run


def test_a_program_that_misses_its_deadline_ends_with_its_children(tmp_path):
    pid_file = tmp_path / "pid"
    script = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],\n"
        "                         start_new_session=True)\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    with pytest.raises(MeasurementError, match="not done after 2 s"):
        run([sys.executable, "-c", script], environment(tmp_path), tmp_path, 2.0)
    child = int(pid_file.read_text())
    deadline = time.monotonic() + 5
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.01)


def test_a_failure_shows_the_end_of_the_output(tmp_path):
    script = "print('what went wrong'); raise SystemExit(3)"
    with pytest.raises(MeasurementError, match=r"exit code 3\nwhat went wrong"):
        run([sys.executable, "-c", script], environment(tmp_path), tmp_path, 10.0)


def test_the_environment_has_no_settings_of_a_dataflow_around_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DORA_NODE_CONFIG", "{}")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    env = environment(tmp_path)
    assert not [name for name in env if name.startswith(("DORA", "PYTHON"))]
    assert env["VIRTUAL_ENV"] == str(tmp_path)
    assert env["PATH"].startswith(f"{tmp_path}/bin:")
