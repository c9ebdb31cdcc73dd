"""Hot reload: detection of changed files, and its effect in a running dataflow."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from dorad.daemon.supervisor.commands import Commands
from dorad.daemon.supervisor.hotreload import HotReload, Signature, Watched, mistake_in, signature
from dorad.launch.command import Runner
from tests.daemon.fakes import FakeBroker, FakeChanges, Stage
from tests.daemon.flows import dataflow, node
from tests.harness.daemon import Daemon
from tests.harness.flows import SINK, SOURCE, logged, seen, write_flow
from tests.harness.waiting import until, wait_until

OLD, NEW, NEWER = (Signature(n, 1, n) for n in (1, 2, 3))

OPERATOR = """
    import pyarrow as pa
    from dora import DoraStatus

    class Operator:
        def __init__(self):
            self.count = 0

        def on_event(self, dora_event, send_output):
            if dora_event["type"] == "INPUT":
                self.count += 1
                send_output("number", pa.array([self.count + OFFSET]))
            elif dora_event["type"] == "RELOAD":
                print("reported of", dora_event["id"])
            return DoraStatus.CONTINUE

    OFFSET = 0
"""


def after(*looks: Signature | None) -> list[bool]:
    """Return whether each poll of a file that was OLD reports a change."""
    file, found = Watched(OLD, OLD), []
    for now in looks:
        file, take_up = file.poll(now)
        found.append(take_up)
    return found


def test_a_change_is_applied_once_two_polls_agree() -> None:
    assert after(OLD, NEW, NEW, NEW) == [False, False, True, False]


def test_a_file_that_still_changes_is_waited_for() -> None:
    assert after(NEW, NEWER, NEW, NEWER, NEWER) == [False, False, False, False, True]


def test_a_file_that_disappears_briefly_is_being_saved() -> None:
    assert after(None, None, NEW, NEW) == [False, False, False, True]
    assert after(NEW, None, OLD, OLD) == [False, False, False, False]


def test_an_equal_file_moved_into_place_is_a_change(tmp_path: Path) -> None:
    file, other = tmp_path / "x.py", tmp_path / "y.py"
    file.write_text("a = 1")
    before = signature(file)
    other.write_text("a = 1")
    other.rename(file)
    assert signature(file) != before
    assert signature(other) is None


def test_a_syntax_error_is_found_before_the_node_is_stopped(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("def broken(")
    assert mistake_in(file) == "SyntaxError: '(' was never closed (x.py, line 1)"
    file.write_bytes(b"\xff\x00")
    assert mistake_in(file) is not None
    file.write_text("raise SystemExit('is only compiled')")
    assert mistake_in(file) is None
    file.unlink()
    assert mistake_in(file) is None


class Restarts:
    """The watch over the file of node `a`, whose restarts end when the test says so."""

    def __init__(self, file: Path, snapshot: dict[str, list[int]] | None = None) -> None:
        self.begun: list[str] = []
        self.may_end = asyncio.Event()
        self.watch = HotReload(
            lambda: {file: (Runner("a", None),)},
            cast("Commands", SimpleNamespace(restart=self._restart)),
            FakeBroker().notifications,
            Stage(dataflow(node("a"))),
            FakeChanges(),
        )
        self.watch.begin(snapshot)
        self.task = asyncio.create_task(self.watch.watch())

    async def _restart(self, node: str, _grace: float) -> None:
        self.begun.append(node)
        await self.may_end.wait()

    def stored(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = json.loads(json.dumps(self.watch.snapshot()))
        return found


async def test_a_restart_that_a_killed_daemon_had_begun_is_done_by_the_next_one(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.py"
    file.write_text("x = 1")
    killed = Restarts(file)
    old = killed.stored()
    file.write_text("x = 1_000")
    await until(lambda: killed.begun)
    # Whenever it was killed until here, the next daemon finds the change.
    assert killed.stored() == old
    following = Restarts(file, killed.stored())
    await until(lambda: following.begun)
    following.may_end.set()
    await until(lambda: following.stored() != old)
    for each in (killed, following):
        each.task.cancel()
        await asyncio.wait({each.task})


# -- with a real daemon ---------------------------------------------------------------------------


def start(found: Daemon, folder: Path, **scripts: str) -> None:
    body = {"python": "op.py", "inputs": {"tick": "dora/timer/hz/50"}, "outputs": ["number"]}
    number = {"number": {"source": "ops/number", "queue_size": 1000}}
    nodes = [
        {"id": "ops", "operator": body},
        {"id": "sink", "path": "sink.py", "inputs": number, "env": {"SEEN": str(folder / "seen")}},
    ]
    file = write_flow(folder, nodes, op=OPERATOR, sink=SINK)
    found.dora_ok("start", file, "--name", "flow", "--detach", "--hot-reload")
    wait_until(lambda: len(seen(folder)) > 5)


def save(path: Path, old: str, new: str) -> None:
    """Save an edit as many editors do: into another file that replaces the first."""
    whole = path.with_suffix(".tmp")
    whole.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    whole.rename(path)


def output(folder: Path, node: str, text: str) -> bool:
    return any(text in line for line in logged(folder, node))


@pytest.mark.timeout(120)
def test_an_operator_reloads_an_edit_and_keeps_its_state(
    own_daemon: Daemon, tmp_path: Path
) -> None:
    start(own_daemon, tmp_path)
    with own_daemon.client() as client:
        pids = {node.node: node.pid for node in client.nodes()}
    save(tmp_path / "op.py", "OFFSET = 0", "OFFSET = 100_000")
    wait_until(lambda: seen(tmp_path)[-1] > 100_000)
    numbers = [number % 100_000 for number in seen(tmp_path)]
    assert numbers == list(range(1, len(numbers) + 1))
    wait_until(lambda: output(tmp_path, "ops", "reported of op"))

    (tmp_path / "op.py").write_text("def broken(", encoding="utf-8")
    wait_until(lambda: output(tmp_path, "ops", "the old code keeps running"))
    mark = len(seen(tmp_path))
    wait_until(lambda: len(seen(tmp_path)) > mark + 5)
    assert seen(tmp_path)[-1] > 100_000

    # An edit without a daemon is applied by the next one.
    own_daemon.kill()
    (tmp_path / "op.py").write_text("", encoding="utf-8")
    write_flow_file(tmp_path / "op.py", OPERATOR.replace("OFFSET = 0", "OFFSET = 200_000"))
    own_daemon.start()
    wait_until(lambda: seen(tmp_path)[-1] > 200_000)
    with own_daemon.client() as client:
        assert {node.node: node.pid for node in client.nodes()} == pids
    own_daemon.dora_ok("stop", "flow")


def write_flow_file(path: Path, source: str) -> None:
    write_flow(path.parent / "other", [], **{path.stem: source})
    (path.parent / "other" / path.name).rename(path)


@pytest.mark.timeout(120)
def test_an_edited_node_is_restarted_and_no_message_is_lost(dorad: Daemon, tmp_path: Path) -> None:
    start(dorad, tmp_path)
    save(tmp_path / "sink.py", "import os", "import os; print('the second one')")
    wait_until(lambda: output(tmp_path, "sink", "the second one"))
    mark = len(seen(tmp_path))
    wait_until(lambda: len(seen(tmp_path)) > mark + 20)
    numbers = seen(tmp_path)
    assert numbers == list(range(1, len(numbers) + 1))

    save(tmp_path / "sink.py", "import os;", "import os; def broken(")
    text = "cannot run; the node runs on unchanged"
    wait_until(lambda: text in dorad.dora_ok("logs", "flow"))
    with dorad.client() as client:
        assert {node.node: node.restarts for node in client.nodes()} == {"ops": 0, "sink": 1}
    dorad.dora_ok("stop", "flow")


@pytest.mark.timeout(120)
def test_without_the_flag_nothing_is_watched(dorad: Daemon, tmp_path: Path) -> None:
    nodes = [{"id": "source", "path": "source.py", "inputs": {"tick": "dora/timer/hz/50"}}]
    nodes[0]["outputs"] = ["number"]
    file = write_flow(tmp_path, nodes, source=SOURCE)
    dorad.dora_ok("start", file, "--name", "flow", "--detach")
    wait_until(lambda: output(tmp_path, "source", "sent 1"))
    save(tmp_path / "source.py", "number = 0", "number = 5000")
    wait_until(lambda: output(tmp_path, "source", "sent 50"))
    assert not output(tmp_path, "source", "sent 5000")
    dorad.dora_ok("stop", "flow")
