"""Measured programs run to their end or are killed at their deadline."""

import sys

import pytest

from dorad.procinfo import is_alive
from hwtests.bench.process import MeasurementError, environment, run
from tests.harness.waiting import wait_until


def test_a_program_that_misses_its_deadline_ends_with_its_children(tmp_path):
    pid_file = tmp_path / "pid"
    script = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],\n"
        "                         start_new_session=True)\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    with pytest.raises(MeasurementError, match="not done after 3 s"):
        run([sys.executable, "-c", script], environment(tmp_path), tmp_path, 3.0)
    child = int(pid_file.read_text())
    wait_until(lambda: not is_alive(child), why="the child outlived its parent")


def test_the_processor_time_of_all_processes_counts(tmp_path):
    script = (
        "import subprocess, sys, time\n"
        "work = 'import time\\nwhile time.process_time() < 0.3: pass'\n"
        "subprocess.run([sys.executable, '-c', work], check=True)\n"
        "print('done')\n"
    )
    ended = run([sys.executable, "-c", script], environment(tmp_path), tmp_path, 60.0)
    assert ended.output == "done\n"
    assert ended.seconds >= 0.3
    assert ended.cpu_s >= 0.3


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
