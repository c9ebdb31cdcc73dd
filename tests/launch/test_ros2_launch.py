"""A node with `path: ros2 launch …` owns what that starts, whichever of its processes is killed.

`ros2` is a program of the same shape: it starts processes in sessions of their own, one of which
ignores every polite signal, and ends them when it gets SIGINT.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dorad.procinfo import is_alive
from tests.cli.running import Running, dora, write

ROS2 = f"""\
#!{sys.executable}
import os, signal, subprocess, sys
from pathlib import Path

LOOP = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (2, 15)]; time.sleep(600)"
if sys.argv[1:3] != ["launch", "demo"]:
    sys.exit(f"ros2: unknown arguments {{sys.argv[1:]}}")
print("[INFO] [launch]: Default logging verbosity is set to INFO", flush=True)
talker = subprocess.Popen([sys.executable, "-c", LOOP], start_new_session=True)
# Of a grandchild, whose parent has ended, `ros2` itself knows nothing.
lost = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', sys.argv[1]],"
lost += "start_new_session=True, stdout=subprocess.DEVNULL).pid)"
out = subprocess.run([sys.executable, "-c", lost, LOOP], stdout=subprocess.PIPE, text=True)
mode = sys.argv[3]
assert "DORA_NODE_CONFIG" not in os.environ


def end(number, frame):
    print("[WARNING] [launch]: user interrupted with ctrl-c (SIGINT)", flush=True)
    sys.exit(0)


signal.signal(signal.SIGINT, end)
pids = (os.getppid(), os.getpid(), talker.pid, int(out.stdout))
Path("pids.tmp").write_text(" ".join(map(str, pids)))
Path("pids.tmp").rename("pids")
if mode == "fail":
    print("[ERROR] [talker-1]: process has died [pid 7, exit code 1]", flush=True)
    sys.exit(3)
while True:
    signal.pause()
"""
FLOW = """
    nodes:
      - {id: robot, path: ros2 launch demo, args: MODE}
      - {id: other, path: other.py, inputs: {tick: dora/timer/millis/50}}
"""
OTHER = """
    from dora import Node

    for event in Node():
        if event["type"] == "STOP":
            print("stopped", flush=True)
            break
"""


@contextmanager
def launched(folder: Path, mode: str) -> Iterator[tuple[Running, list[int]]]:
    """Run FLOW until `ros2` has started all; yield the keeper, `ros2`, and what that started."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    (bin_folder / "ros2").write_text(ROS2)
    (bin_folder / "ros2").chmod(0o755)
    write(folder, FLOW.replace("MODE", mode), other=OTHER)
    path = f"{bin_folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    with dora(folder, "dataflow.yml", env={"PATH": path}) as run:
        run.until((folder / "pids").exists)
        yield run, [int(each) for each in (folder / "pids").read_text().split()]


@pytest.mark.parametrize("victim", ["node", "keeper", "ros2"])
def test_nothing_remains_after_any_of_its_processes_was_killed(tmp_path: Path, victim: str) -> None:
    with launched(tmp_path, "wait") as (run, pids):
        keeper, ros2, *_ = pids
        with Path(f"/proc/{keeper}/stat").open() as file:
            node = int(file.read().rpartition(")")[2].split()[1])
        os.kill({"node": node, "keeper": keeper, "ros2": ros2}[victim], signal.SIGKILL)
        run.until(lambda: not any(map(is_alive, (node, *pids))))
        # The dataflow did not end meanwhile, which would have ended everything.
        assert run.process.poll() is None
        run.signal(signal.SIGINT)
        run.end(1)
        assert "other: stopped" in run.out


def test_a_stop_is_a_ctrl_c_for_ros2_and_kills_what_that_leaves(tmp_path: Path) -> None:
    with launched(tmp_path, "wait") as (run, pids):
        run.signal(signal.SIGINT)
        run.end(0)
        assert not any(map(is_alive, pids))
        assert "WARN   robot: launch user interrupted with ctrl-c" in run.out


def test_its_exit_code_is_that_of_ros2_and_its_lines_have_levels(tmp_path: Path) -> None:
    with launched(tmp_path, "fail") as (run, pids):
        run.until(lambda: "exited with code 3" in run.out + run.err)
        run.until(lambda: not any(map(is_alive, pids)))
        assert "ERROR  robot: talker-1 process has died" in run.out
        run.signal(signal.SIGINT)
        run.end(1)


def test_without_ros_2_the_message_says_what_to_install(tmp_path: Path) -> None:
    if list(Path("/opt/ros").glob("*/setup.bash")):
        pytest.skip("there is a ROS 2 on this machine")
    write(tmp_path, FLOW.replace("MODE", "x"), other=OTHER)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        assert "there is no ROS 2 on this machine: install one" in run.err + run.out
