"""Events that other threads read and free, under the thread sanitizer; senders that are killed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness.dataflow import Flow
from tests.libdora.conftest import SANITIZE, Compile, add, build_library

HERE = Path(__file__).parent
FLAGS = ("-fsanitize=thread", "-O1", "-pthread", "-Wno-error=tsan")
"""The sanitizer knows no fences; those of the rings are between processes, beyond its sight."""

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(SANITIZE), reason="one sanitizer at a time"),
]


def runs_here(folder: Path) -> bool:
    """Return whether programs with the thread sanitizer can be built, and run."""
    (folder / "try.c").write_text("int main(void) { return 0; }\n")
    command = ["cc", *FLAGS, str(folder / "try.c"), "-o", str(folder / "try")]
    return (
        shutil.which("cc") is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
        and subprocess.run([folder / "try"], capture_output=True, check=False).returncode == 0
    )


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    """The prefix of a library with the thread sanitizer."""
    if not runs_here(tmp_path):
        pytest.skip("the thread sanitizer does not run here")
    prefix = tmp_path / "watched"
    build_library(prefix, *FLAGS)
    return prefix


@pytest.mark.timeout(180)
@pytest.mark.parametrize("size", [8, 40_000])
def test_threads_free_events_of_a_sender_that_is_killed_and_restarted(
    flow: Flow, compile_node: Compile, watched: Path, size: int
) -> None:
    tool = compile_node("tool", HERE / "tool.c", prefix=watched, flags=FLAGS)
    threads = compile_node("threads", HERE / "threads.c", prefix=watched, flags=FLAGS)
    killer = f"""
    import time
    import psutil
    from dora import Node
    from probe import report
    node = Node()
    killed = 0
    while killed < 4:
        time.sleep(0.3)
        for process in psutil.process_iter(["cmdline", "cwd"]):
            words = process.info["cmdline"] or []
            if process.info["cwd"] == {str(tool.parent)!r} and "victim" in words:
                process.kill()
                killed += 1
    report(killed)
    """
    flow.node("killer", killer)
    restart = {"restart_policy": "on-failure", "max_restarts": 100}
    add(flow, "victim", tool, args=f"count 100000000 {size} victim", outputs=["out"], **restart)
    add(flow, "threads", threads, inputs={"in": {"source": "victim/out", "queue_size": 100}})
    outcome = flow.run(stop_after=8, deadline=120)
    assert flow.reports("killer") == [4], outcome.output
    assert "ThreadSanitizer" not in outcome.output, outcome.output
    found = re.search(r"taken (\d+), bad 0", outcome.output)
    assert found is not None, outcome.output
    assert int(found[1]) > 500
