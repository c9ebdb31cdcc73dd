"""Every example under docs/examples runs with the output of its README.

READMEs with a session of commands are followed by tests/docs; here are the examples whose output
depends on the machine, and those that a test must interrupt.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from tests.harness.waiting import wait_until

from .conftest import BIN, DEADLINE_S, EXAMPLES, Example, finish

pytestmark = pytest.mark.examples

Copy = Callable[[str], Example]
FOLDERS = sorted(folder.name for folder in EXAMPLES.iterdir() if folder.is_dir())


def test_the_index_lists_every_example() -> None:
    index = (EXAMPLES / "README.md").read_text()
    assert sorted(set(re.findall(r"\]\(([\w-]+)/\)", index))) == FOLDERS


@pytest.mark.parametrize("name", FOLDERS)
def test_each_example_documents_how_to_run_it(name: str) -> None:
    readme = (EXAMPLES / name / "README.md").read_text()
    assert f"# {name}\n" in readme
    assert re.search(r"dora (run|start) \w+\.yml", readme)


@pytest.mark.parametrize("name", FOLDERS)
def test_each_example_says_in_three_lines_what_to_look_at(name: str) -> None:
    readme = (EXAMPLES / name / "README.md").read_text()
    assert len(re.findall(r"^- ", readme, re.MULTILINE)) == 3


def test_each_example_is_run_by_a_test() -> None:
    followed = {
        name for name in FOLDERS if "```console\n$ " in (EXAMPLES / name / "README.md").read_text()
    }
    called = set(re.findall(r'example\("([\w-]+)"\)', Path(__file__).read_text()))
    # tests/fleet/test_demo.py, test_over_machines.py, rollout/test_real_cell.py and
    # tests/ros2_peers run them.
    assert set(FOLDERS) - followed - called == {"cell", "fleet", "ros2-action", "two-machines"}


def test_hello_greets_five_times_and_ends_by_itself(example: Copy) -> None:
    output = example("hello").run()
    greetings = [f"heard: hello {number}" for number in range(1, 6)]
    assert output.code == 0, output.text
    assert output.printed("listener")[-6:] == [*greetings, "done: ALL_INPUTS_CLOSED"]


def test_drop_oldest_keeps_the_newest_and_backpressure_keeps_all(example: Copy) -> None:
    output = example("queue-policies").run()
    assert output.code == 0, output.text
    newest = re.search(r"newest: received (\d+) of 60, dropped (\d+), the last was 59", output.text)
    assert newest is not None, output.text
    assert 0 < int(newest[1]) < 60
    assert "received 60 of 60, dropped 0, the last was 59" in output.printed("everything")


def test_backpressure_delays_only_its_own_source(example: Copy) -> None:
    output = example("queue-policies").run()
    waited = {
        node: float(seconds)
        for node, seconds in re.findall(r"(sensor-\w): sent 60, waited for (\S+) s", output.text)
    }
    # 60 numbers of 20 ms each, less the two that wait at the end and the source's own pauses.
    assert waited["sensor-b"] > 0.5, output.text
    assert waited["sensor-a"] < waited["sensor-b"] / 2


def test_the_async_node_keeps_its_heartbeat_while_it_waits(example: Copy) -> None:
    output = example("async-node").run()
    lines = output.printed("watcher")
    assert output.code == 0, output.text
    assert sum(line.startswith("heartbeat") for line in lines) >= 2
    assert lines[-1] == "done: 10 readings, mean 20.20"


def test_a_dynamic_node_attaches_twice_and_leaves_without_harm(example: Copy) -> None:
    dynamic = example("dynamic-node")
    with dynamic.start() as run:
        assert run.stdout is not None
        assert any("counting; start the viewer" in line for line in run.stdout)
        for _ in range(2):
            with dynamic.start_by_hand("viewer.py") as viewer:
                seen = finish(viewer)
            counts = [int(count) for count in re.findall(r"count is (\d+)", seen.text)]
            assert seen.code == 0, seen.text
            assert len(counts) == 5
            assert all(later == earlier + 1 for earlier, later in pairwise(counts))
        run.send_signal(signal.SIGINT)
        output = finish(run)
    assert output.code == 0, output.text


def test_four_subscribers_all_see_all(example: Copy) -> None:
    output = example("fan-out").run()
    assert output.code == 0, output.text
    for node in ("north", "east", "south", "west"):
        assert "received 1000, sum 332833500" in output.printed(node)


def test_a_call_is_answered_and_an_error_reaches_the_caller(example: Copy) -> None:
    output = example("service").run()
    assert output.code == 0, output.text
    assert output.printed("client") == [
        "84 / 2 = 42",
        "91 / 7 = 13",
        "1 / 0 failed: ZeroDivisionError: integer division or modulo by zero",
        "then came a tick",
    ]


def test_one_goal_arrives_and_the_other_is_canceled(example: Copy) -> None:
    output = example("action").run()
    assert output.code == 0, output.text
    assert output.printed("client") == [
        "right: canceled, before 100000: True",
        "left: succeeded at 40, feedback in order: True",
    ]


@pytest.mark.skipif(
    not all(map(shutil.which, ("cmake", "cc", "c++"))), reason="there is no CMake or compiler"
)
@pytest.mark.timeout(300)
def test_nodes_in_c_and_cpp_work_with_nodes_in_python(example: Copy) -> None:
    native = example("native")
    script = EXAMPLES.parents[1] / "packaging" / "nodelib.py"
    subprocess.run([sys.executable, script], check=True)
    built = native.build()
    assert built.code == 0, built.text
    test = subprocess.run([native.folder / "build" / "controller_test"], check=False)
    assert test.returncode == 0
    output = native.run("--stop-after", "15s")
    assert output.printed("navigator") == [
        "0.5: succeeded in front of the wall, progress in order: True",
        "99: aborted in front of the wall, progress in order: True",
    ]
    assert sorted(output.printed("display")) == ["image: yuyv True", "scan: float 360 rays"]


def test_the_voice_is_cut_off_and_the_music_is_not(example: Copy) -> None:
    output = example("streaming").run()
    assert output.code == 0, output.text
    assert "interrupted" in output.printed("assistant")
    lines = output.printed("loudspeaker")
    assert "voice: cut off" in lines
    heard = re.search(r"voice, segment 0: (\d+) chunks heard", output.text)
    assert heard is not None, output.text
    assert 0 < int(heard[1]) < 300
    assert lines[-1] == "voice, segment 1: 5 chunks heard"
    assert "music, segment 0: 61 chunks heard" in lines


def test_arrays_from_empty_arrive_without_a_copy(example: Copy) -> None:
    output = example("zero-copy-numpy").run()
    assert output.code == 0, output.text
    lines = output.printed("consumer")
    assert "20 arrays of 8 MiB: 20 in shared memory, read-only; 20 intact" in lines


def test_every_way_of_logging_shows_its_level(example: Copy) -> None:
    output = example("python-logging").run()
    assert output.code == 0, output.text
    for level, words in (
        ("INFO", "ready"),
        ("INFO", "gripper closed"),
        ("INFO", "arm homed in 3 steps"),
        ("stdout", "tick 2: a plain line has no level"),
        ("DEBUG", "nothing unusual"),
        ("WARN", "joint 2 is warm"),
        ("ERROR", "battery low"),
    ):
        assert any(words in line for line in output.lines("robot", level)), words


def test_a_log_level_keeps_the_severe_lines(example: Copy) -> None:
    output = example("python-logging").run("--log-level", "warn")
    lines = output.lines("robot")
    assert output.code == 0, output.text
    assert any("joint 2 is warm" in line for line in lines)
    assert any("battery low" in line for line in lines)
    assert not any("ready" in line or "tick" in line or "unusual" in line for line in lines)


def test_nothing_is_lost_in_a_chain_that_sends_from_its_first_moment(example: Copy) -> None:
    output = example("chain").run()
    assert output.code == 0, output.text
    assert "arrived 20 of 20, in order" in output.printed("sink")


def test_a_module_is_used_twice_with_its_own_parameters_and_inputs(example: Copy) -> None:
    modules = example("modules")
    output = modules.run()
    assert output.code == 0, output.text
    lines = ["double: [2, 4, 6, 8, 10]", "tenfold: [110, 120, 130, 140, 150]"]
    assert output.printed("printer") == lines
    flat = subprocess.run(
        [BIN / "dora", "expand", "dataflow.yml"],
        cwd=modules.folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    (modules.folder / "dataflow.yml").write_text(flat.stdout)
    for file in modules.folder.glob("modules/**/*.yml"):
        file.unlink()
    output = modules.run()
    assert output.code == 0, output.text
    assert output.printed("printer") == lines


def test_timers_of_all_units_tick(example: Copy) -> None:
    output = example("timers").run()
    assert output.code == 0, output.text
    ticks = {
        timer: int(count)
        for timer, count in re.findall(r"(every-\S+|at-30-hz): (\d+) ticks in 2.05 s", output.text)
    }
    # Missed ticks are skipped on a busy machine; there are never more than the time allows.
    assert 1 <= ticks["every-second"] <= 4
    assert 4 < ticks["every-100-ms"] <= 32
    assert ticks["every-100-ms"] < ticks["at-30-hz"] <= 73


def test_traces_of_a_recording_find_the_slow_node(example: Copy) -> None:
    slow = example("slow-node")
    output = slow.run()
    assert output.code == 0, output.text
    (file,) = slow.folder.glob("recordings/*.mcap")

    def trace(*words: str | Path) -> str:
        command = [BIN / "dora", "trace", *words, "-f", "json"]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=DEADLINE_S, check=True
        ).stdout

    paths = map(json.loads, trace("paths", file).splitlines())
    (path,) = (each for each in paths if each["path"].endswith("steering"))
    assert path["path"] == "camera/tick → camera → rectifier → detector → steering"
    assert path["count"] > 20
    assert path["worst_ms"] > 400
    slowest = [json.loads(line) for line in trace("list", file, "--slow", "-n", "6").splitlines()]
    assert slowest[0]["trace_id"] == path["worst_trace_id"]
    # A busy machine may stop any node once, for one message.
    slow_nodes = Counter(
        span["node"]
        for each in slowest
        for span in json.loads(trace("view", file, each["trace_id"]))["spans"]
        if span["done"] is not None and span["done"] - span["received"] > 0.35
    )
    ((name, count),) = slow_nodes.most_common(1)
    assert (name, count >= 2) == ("detector", True)


def test_a_node_tested_with_a_mock_passes_its_own_tests(example: Copy) -> None:
    folder = example("mock-testing").folder
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null"]
    tests = subprocess.run(
        [*command, "--rootdir", folder, folder],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert "3 passed" in tests.stdout


def test_the_same_node_works_in_its_dataflow(example: Copy) -> None:
    output = example("mock-testing").run()
    assert output.code == 0, output.text
    assert output.printed("heater")[-2:] == ["heater on", "heater off"]


def test_a_latched_input_has_the_map_again_after_a_crash(example: Copy) -> None:
    output = example("latched").run()
    assert output.code == 0, output.text
    with_map = "a map with 400 cells of wall"
    assert output.printed("planner") == [f"start 1: {with_map}", f"start 2: {with_map}"]
    assert output.printed("forgetful") == [f"start 1: {with_map}", "start 2: no map"]


def test_pictures_of_two_cameras_are_paired_and_none_wrongly(example: Copy) -> None:
    output = example("synchronised-inputs").run()
    assert output.code == 0, output.text
    pairs = re.search(r"(\d+) pairs, (\d+) wrong, sent at most (\S+) ms apart", output.text)
    assert pairs is not None, output.text
    # Of 40 ticks the two lose 12; a busy machine loses more.
    assert 5 <= int(pairs[1]) <= 40 - 12
    assert int(pairs[2]) == 0
    assert float(pairs[3]) <= 15.0


def test_each_consumer_gets_numbers_at_its_own_rate(example: Copy) -> None:
    output = example("rate-limit").run()
    assert output.code == 0, output.text
    found = {
        node: tuple(map(int, numbers))
        for node, *numbers in re.findall(
            r"(\w+): got (\d+) of (\d+), the last was (\d+), at least (\d+) ms apart", output.text
        )
    }
    seconds = re.search(r" sensor: sent 400 in (\S+) s", output.text)
    assert seconds is not None, output.text
    received, _, last, nearest = found["display"]
    assert last == 399
    assert 5 <= received <= 10 * float(seconds[1]) + 2
    assert nearest >= 50  # 100, but a busy machine may be late to look at its clock
    received, _, last, nearest = found["control"]
    assert (received < 200, last, nearest >= 15) == (True, 399, True)
    assert found["archive"][:3] == (100, 100, 99)


def test_a_node_continues_without_one_that_has_failed(example: Copy) -> None:
    output = example("error-propagation").run()
    assert output.code == 1, output.text
    assert output.printed("fusion") == [
        "lidar failed: exited with code 1 with stderr output:",
        "continuing without points",
        "5 scans; continued after the failure",
    ]


def test_no_message_is_lost_between_two_processes_of_a_listener(example: Copy) -> None:
    output = example("restart").run()
    assert output.code == 0, output.text
    lines = output.printed("listener")
    assert lines[-1] == "received 12 more, the last (3, 4)"
    assert "driver is restarted" in lines


def test_a_silent_sensor_is_detected_and_recovers(example: Copy) -> None:
    output = example("circuit-breaker").run()
    assert output.code == 0, output.text
    lines = output.printed("controller")
    assert lines[-1] == "closed: finished"
    # A tick may come before the first distance, and a message before the daemon has noticed it.
    silent = lines[lines.index("closed: timeout") :]
    stopped, *after = (silent.index(line) for line in ("stop", "recovered", "drive at 0.8 m/s"))
    assert stopped < min(after), output.text


def test_vision_finds_faces_and_ends_with_a_table_and_a_picture(example: Copy) -> None:
    vision = example("vision")
    output = vision.run("--env", "FRAMES=240")
    assert output.code == 0, output.text
    counts = {
        name: int(count)
        for name, count in re.findall(
            r"sink: (frames|detections|faces) +(\d+)", output.text, re.MULTILINE
        )
    }
    assert 10 <= counts["frames"] <= 240, output.text
    assert counts["detections"] >= 2
    assert counts["faces"] >= 1
    picture = vision.folder / "out" / "faces.png"
    assert output.printed("sink")[-1] == f"picture: {picture}"
    with Image.open(picture) as image:
        face_colour = sum(
            count
            for count, colour in image.getcolors(maxcolors=1 << 24) or []
            if colour == (94, 240, 168)
        )
        assert image.size == (1280, 1260)
    assert face_colour > 500


def rows(waterfall: str) -> Counter[str]:
    """Return the labels of the rows of a waterfall: nodes, and messages on their way."""
    kinds = "process|wait|transport"
    return Counter(re.findall(rf"^( └\S+|\w+) +(?:{kinds}) ", waterfall, re.MULTILINE))


def test_the_waterfall_of_vision_in_the_guide_is_what_its_command_prints(example: Copy) -> None:
    guide = (EXAMPLES.parent / "guide" / "tracing.md").read_text(encoding="utf-8")
    words = ("dora", "trace", "view", "--slow", "--through", "detector/faces")
    in_guide = guide.partition(f"$ {' '.join(words)}\n")[2].partition("```")[0]
    assert rows(in_guide)["detector"] == 1
    command = [BIN / words[0], *words[1:]]
    with example("vision").start() as run:
        # A trace is shown before all of its nodes are done, too.
        done = wait_until(
            lambda: subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S),
            lambda done: rows(done.stdout) == rows(in_guide),
            deadline_s=2 * DEADLINE_S,
        )
        run.send_signal(signal.SIGINT)
        finish(run)
    assert done.stdout.startswith("camera/tick → camera → detector → sink ")


def test_typed_messages_are_read_back_and_others_are_refused(example: Copy) -> None:
    output = example("typed-messages").run()
    assert output.code == 0, output.text
    spots = output.printed("display")
    assert spots[0] == "bright 200 at 1.5, 21.5, moved by 0"
    assert spots[-1] == "bright 207 at 29.5, 21.5, moved by 28"
    (refused,) = output.printed("camera")
    assert refused == (
        "type mismatch: camera/image -> tracker/image: not std/media/v1/Image[encoding=mono8]: "
        "expected Struct, found Float64"
    )


def test_the_module_of_typed_messages_is_what_is_generated(example: Copy) -> None:
    folder = example("typed-messages").folder
    command = [BIN / "dora", "types", "generate", "dataflow.yml"]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert made.stdout == (folder / "messages.py").read_text()


def test_operators_of_one_process_do_not_copy(example: Copy) -> None:
    output = example("operators").run()
    assert output.code == 0, output.text
    printed = output.printed("display")
    assert printed == ["20 pictures without a copy, the last one as bright as 120"]


def test_an_operator_and_a_node_reload_edits_while_they_run(example: Copy) -> None:
    edited = example("hot-reload")
    with edited.start("--hot-reload") as run:
        assert run.stdout is not None
        lines: list[str] = []

        def read_until(text: str) -> None:
            for line in run.stdout or ():
                lines.append(line)
                if text in line:
                    return
            pytest.fail(f"no {text!r} in:\n{''.join(lines)}")

        def edit(name: str, old: str, new: str) -> None:
            file = edited.folder / name
            file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")

        read_until("count is 3")
        edit("counter.py", "STEP = 1", "STEP = 1000")
        read_until("the step is now 1000")
        edit("printer.py", "count is", "now it is")
        read_until("now it is")
        run.send_signal(signal.SIGINT)
        output = finish(run)
    assert output.code == 0, output.text
    counts = [int(number) for number in re.findall(r"(?:count|it) is (\d+)", "".join(lines))]
    steps = {later - earlier for earlier, later in pairwise(counts)}
    assert steps == {1, 1000}


@pytest.mark.timeout(150)
def test_a_node_tested_against_a_recording_passes_its_own_tests(example: Copy) -> None:
    found = example("replay-testing")
    output = found.test()
    assert output.code == 0, output.text
    assert "2 passed" in output.text


def test_the_same_drive_works_live(example: Copy) -> None:
    output = example("replay-testing").run("--exit-when-nodes-finish")
    assert output.code == 0, output.text
    assert re.search(r"50 speeds, the last was \d\.\d\d m/s", output.text)


def test_cubes_are_picked_and_placed_by_friction_alone(example: Copy) -> None:
    pytest.importorskip("mujoco", reason="the extra `mujoco` is not installed")
    output = example("pick-and-place").run()
    assert output.code == 0, output.text
    (last,) = output.printed("robot")
    assert re.fullmatch(r"placed 3 of 3 cubes in [\d.]+ s of simulated time", last)
