"""`dora view` of a dataflow under a real daemon, and `dora run --view`."""

import asyncio
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.harness.commands import fails
from tests.harness.daemon import Daemon
from tests.harness.dataflow import clean_environment
from tests.harness.flows import write_flow
from tests.harness.waiting import wait_until
from tests.view.viewer import viewing

pytestmark = pytest.mark.timeout(150)

ROBOT = """
    import pyarrow as pa
    from dora import Node

    node = Node()
    pixels = pa.array(bytes(160 * 120 * 3), pa.uint8())
    for number, event in enumerate(node):
        if event["type"] == "STOP":
            break
        print("tick", number)
        picture = {"width": 160, "height": 120, "encoding": "rgb8"}
        node.send_output("image", pixels, picture)
        node.send_output("pose", pa.array([{"x": number * 0.5, "frame": "map"}]))
"""

ADDRESS = re.compile(r"ws://127\.0\.0\.1:\d+/\S+")


def flow(folder: Path) -> Path:
    """Write a dataflow whose only node sends a picture and a pose, 20 times a second."""
    node = {
        "id": "robot",
        "path": "robot.py",
        "inputs": {"tick": "dora/timer/hz/20"},
        "outputs": ["image", "pose"],
    }
    return write_flow(folder, [node], robot=ROBOT)


@contextmanager
def command(*words, env, cwd):
    """Run `dora`; yield its process and the address that it prints."""
    program = Path(sys.executable).parent / "dora"
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [program, *words], env=env, cwd=cwd, stdout=subprocess.DEVNULL, stderr=pipe, text=True
    ) as process:
        try:
            address = ""
            for line in process.stderr:
                if found := ADDRESS.search(line):
                    address = found[0]
                    break
            assert address, "it ended without an address"
            yield process, address
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


async def look(address):
    async with viewing(address) as viewer:
        await viewer.read(lambda: {"robot/image", "robot/pose"} <= viewer.topics)
        await viewer.subscribe("robot/image", "robot/pose", "dora/log")
        await viewer.read(
            lambda: (
                {name for name, *_ in viewer.messages} == viewer.topics
                and len(viewer.of("robot/pose")) >= 5
            )
        )
        poses = [each["data"][0] for each in viewer.of("robot/pose")]
        assert {each["frame"] for each in poses} == {"map"}
        assert [each["x"] for each in poses] == sorted({each["x"] for each in poses})
        assert len(viewer.of("robot/image")[0]["data"]) == 160 * 120 * 3
        assert any(each["message"].startswith("tick") for each in viewer.of("dora/log"))


def test_a_dataflow_of_the_daemon_is_seen_until_it_ends(dorad: Daemon, tmp_path: Path) -> None:
    dorad.dora_ok("start", flow(tmp_path), "--name", "demo", "--detach")
    with command("view", "--port", "0", env=dorad.env, cwd=tmp_path) as (process, address):
        asyncio.run(look(address))
        dorad.dora_ok("stop", "demo")
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "the dataflow has ended" in err


def test_a_topic_that_is_not_there_is_named(dorad: Daemon, tmp_path: Path) -> None:
    dorad.dora_ok("start", flow(tmp_path), "--name", "demo", "--detach")
    fails(dorad.dora("view", "--topics", "robot/pos"), 1, "robot/pose")


def test_a_dataflow_of_dora_run_is_seen(tmp_path: Path) -> None:
    env = clean_environment(Path(sys.executable).parent)
    words = ("run", flow(tmp_path), "--view", "--stop-after", "60s")
    with command(*words, env=env, cwd=tmp_path) as (_, address):
        asyncio.run(look(address))


def test_without_rerun_the_command_says_what_to_install(dorad: Daemon, tmp_path: Path) -> None:
    dorad.dora_ok("start", flow(tmp_path), "--name", "demo", "--detach")
    (tmp_path / "rerun.py").write_text("raise ImportError")
    env = dorad.env | {"PYTHONPATH": str(tmp_path)}
    program = Path(sys.executable).parent / "dora"
    done = subprocess.run(
        [program, "view", "--rerun"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "pip install 'dorad[view]'" in done.stderr


needs_rerun = pytest.mark.skipif(find_spec("rerun") is None, reason="rerun-sdk is not installed")


@needs_rerun
def test_rerun_reads_pictures_numbers_texts_and_log_lines(dorad: Daemon, tmp_path: Path) -> None:
    dorad.dora_ok("start", flow(tmp_path), "--name", "demo", "--detach")
    target = tmp_path / "a.rrd"
    with target.open("wb") as file:
        command = [dorad.bin / "dora", "view", "--rerun", "--stdout"]
        pipe = subprocess.PIPE
        view = subprocess.Popen(command, env=dorad.env, stdout=file, stderr=pipe, text=True)
    wait_until(lambda: target.stat().st_size > 3_000_000)
    dorad.dora_ok("stop", "demo")
    _, err = view.communicate(timeout=60)
    assert (view.returncode, "ended" in err) == (0, True), err
    command = [dorad.bin / "rerun", "rrd", "print", "-v", target]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for column in (
        "/robot/pose/x@Scalars:scalars",
        "/robot/pose/frame@TextLog:text",
        "/robot/image@Image:buffer",
        "/dora/log/robot@TextLog:text",
    ):
        assert column in shown


@needs_rerun
def test_a_rerun_that_is_closed_or_stands_still_ends_the_view(
    dorad: Daemon, tmp_path: Path
) -> None:
    dorad.dora_ok("start", flow(tmp_path), "--name", "demo", "--detach")
    closed, stalled = (dorad.begin("view", "--rerun", "--stdout") for _ in range(2))
    for each in (closed, stalled):
        assert each.stdout is not None
        assert each.stdout.buffer.read(4) == b"RRF2"
    closed.stdout.close()
    assert closed.wait(60) == 0
    dorad.dora_ok("stop", "demo")
    assert stalled.wait(60) == 0
    for each in (closed, stalled):
        each.stderr.close()
    stalled.stdout.close()
