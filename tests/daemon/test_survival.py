"""SIGKILL of the daemon: the next one continues where it ended, and nothing is lost."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import apsw
import psutil
import pytest

from dorad.procinfo import is_alive
from tests.harness.daemon import Daemon, daemon
from tests.harness.flows import counting, logged, seen, until_more_seen, write_flow
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]


@pytest.fixture
def dorad() -> Iterator[Daemon]:
    with daemon() as found:
        yield found


def pids(found: Daemon) -> dict[tuple[str, str], int | None]:
    with found.client() as client:
        return {(node.dataflow, node.node): node.pid for node in client.nodes()}


def check_log(folder: Path, numbers: list[int]) -> None:
    """Every line once and in order; the last ones may have been sent to a sink that had stopped."""
    lines = logged(folder, "source")
    assert lines == [f"sent {n}" for n in range(len(lines))]
    assert len(lines) >= len(numbers)


@contextlib.contextmanager
def edited(found: Daemon) -> Iterator[apsw.Connection]:
    """The state file of a daemon that has ended."""
    with contextlib.closing(apsw.Connection(str(found.paths.database))) as database:
        yield database


def test_three_dataflows_keep_running_and_are_adopted(dorad: Daemon, tmp_path: Path) -> None:
    folders = [tmp_path / f"flow{number}" for number in range(3)]
    for folder in folders:
        dorad.dora_ok("start", counting(folder), "--name", folder.name, "--detach")
    for folder in folders:
        until_more_seen(folder, 20)
    before = pids(dorad)
    dorad.kill()
    for folder in folders:
        # Data flows without a daemon.
        until_more_seen(folder, 50)
    dorad.start()
    assert pids(dorad) == before
    with dorad.client() as client:
        assert client.status().adopted == 6
        assert [flow.status for flow in client.list()] == ["running"] * 3
    for folder in folders:
        dorad.dora_ok("stop", folder.name)
        numbers = seen(folder)
        assert numbers == list(range(len(numbers)))
        check_log(folder, numbers)


def test_killed_again_and_again_no_line_and_no_number_is_lost(
    dorad: Daemon, tmp_path: Path
) -> None:
    dorad.dora_ok("start", counting(tmp_path, hz=500), "--name", "flow", "--detach")
    wait_until(lambda: len(seen(tmp_path)) > 20)
    for _ in range(5):
        dorad.kill()
        dorad.start()
        until_more_seen(tmp_path, 20)
    dorad.dora_ok("stop", "flow")
    numbers = seen(tmp_path)
    assert numbers == list(range(len(numbers)))
    check_log(tmp_path, numbers)


def test_a_node_that_ends_meanwhile_is_reported_with_its_exit_code(
    dorad: Daemon, tmp_path: Path
) -> None:
    file = write_flow(
        tmp_path,
        [{"id": "doomed", "path": "doomed.py", "inputs": {"tick": "dora/timer/millis/10"}}],
        doomed="""
            import os, pathlib
            from dora import Node
            node = Node()
            pathlib.Path("ready").touch()
            for event in node:
                if os.path.exists("end"):
                    raise SystemExit(7)
        """,
    )
    uuid = dorad.dora_ok("start", file, "--detach").split()[-1]
    wait_until((tmp_path / "ready").exists)
    pid = next(iter(pids(dorad).values()))
    assert pid is not None
    dorad.kill()
    (tmp_path / "end").touch()
    wait_until(lambda: not is_alive(pid))
    dorad.start()
    with dorad.client() as client:
        state = client.wait(uuid, until="ended", timeout=20)
    assert state.status == "failed"
    assert "exited with code 7" in state.failures[0].headline


def test_the_restart_policy_continues_under_the_next_daemon(dorad: Daemon, tmp_path: Path) -> None:
    file = counting(tmp_path, restart_policy="always", restart_delay=0.05)
    dorad.dora_ok("start", file, "--name", "flow", "--detach")
    wait_until(lambda: len(seen(tmp_path)) > 10)
    first = {node: pid for (_, node), pid in pids(dorad).items()}
    assert first["source"] is not None
    dorad.kill()
    os.kill(first["source"], signal.SIGKILL)
    wait_until(lambda: not is_alive(first["source"] or 0))
    dorad.start()

    def again() -> bool:
        with dorad.client() as client:
            (source,) = [node for node in client.nodes() if node.node == "source"]
        return source.restarts == 1 and source.pid not in (None, first["source"])

    wait_until(again)
    mark = len(seen(tmp_path))
    wait_until(lambda: len(seen(tmp_path)) > mark + 10)


def test_without_its_state_file_a_daemon_ends_unknown_processes(
    dorad: Daemon, tmp_path: Path
) -> None:
    dorad.dora_ok("start", counting(tmp_path), "--detach")
    wait_until(lambda: len(seen(tmp_path)) > 5)
    nodes = [pid for pid in pids(dorad).values() if pid]
    dorad.kill()
    for path in dorad.paths.state.glob("state.db*"):
        path.unlink()
    dorad.start()
    wait_until(lambda: not any(map(is_alive, nodes)))
    with dorad.client() as client:
        assert client.list() == []
        notices = client.status().notices
    assert any("unknown dataflows" in text and "2 processes" in text for text in notices)


def test_a_damaged_state_file_is_renamed_and_reported(dorad: Daemon) -> None:
    dorad.kill()
    for path in dorad.paths.state.glob("state.db-*"):
        path.unlink()
    dorad.paths.database.write_bytes(b"no database " * 1000)
    dorad.start()
    with dorad.client() as client:
        assert any("unusable" in notice for notice in client.status().notices)
    assert list(dorad.paths.state.glob("state.db.unusable-*"))


@pytest.mark.parametrize("damage", ["$.supervisor.life", "$.broker.boxes.source.rings"])
def test_damage_to_one_dataflow_ends_only_that_one(
    dorad: Daemon, tmp_path: Path, damage: str
) -> None:
    for name in ("damaged", "sound"):
        dorad.dora_ok("start", counting(tmp_path / name), "--detach", "--name", name)
        until_more_seen(tmp_path / name, 5)
    nodes = [pid for pid in pids(dorad).values() if pid]
    dorad.kill()
    with edited(dorad) as database:
        database.execute(
            "UPDATE dataflow SET snapshot = json_remove(snapshot, ?) WHERE name = 'damaged'",
            (damage,),
        )
    dorad.start()
    wait_until(lambda: [is_alive(pid) for pid in nodes] == [False, False, True, True])
    with dorad.client() as client:
        wait_until(lambda: [flow.status for flow in client.list()] == ["failed", "running"])
        (failure,) = client.wait("damaged").failures
    assert "adopted" in failure.headline or "error of the daemon" in failure.headline
    mark = len(seen(tmp_path / "sound"))
    wait_until(lambda: len(seen(tmp_path / "sound")) > mark + 10)


def test_when_holder_and_daemon_are_killed_nothing_is_left_running(
    dorad: Daemon, tmp_path: Path
) -> None:
    dorad.dora_ok("start", counting(tmp_path), "--detach", "--name", "flow")
    wait_until(lambda: len(seen(tmp_path)) > 5)
    for process in dorad.processes():
        with contextlib.suppress(psutil.Error):
            if "serve_daemons" in " ".join(process.cmdline()):
                process.kill()
    dorad.kill()
    wait_until(dorad.processes, lambda left: left == [])
    dorad.start()
    with dorad.client() as client:
        (flow,) = client.list()
    assert flow.status == "failed"


def test_that_a_dataflow_stops_is_stored_in_one_piece(dorad: Daemon, tmp_path: Path) -> None:
    """Of a daemon killed between two pieces, the next one showed `stopping` and stopped nothing."""
    dorad.end()
    with edited(dorad) as database:
        database.execute("""
            CREATE TABLE kept (status, stops);
            CREATE TRIGGER keep AFTER UPDATE ON dataflow WHEN new.snapshot != '{}'
            BEGIN INSERT INTO kept VALUES
            (new.status, json_extract(new.snapshot, '$.supervisor.life.stopping')); END""")
    dorad.start()
    dorad.dora_ok("start", counting(tmp_path), "--name", "brief", "--detach")
    wait_until(lambda: seen(tmp_path))
    dorad.dora_ok("stop", "brief")
    dorad.end()
    with edited(dorad) as database:
        kept = list(database.execute("SELECT DISTINCT status, stops FROM kept"))
    assert set(kept) == {("starting", 0), ("running", 0), ("stopping", 1)}


def test_a_dataflow_that_had_just_ended_has_ended_for_the_next_daemon(
    dorad: Daemon, tmp_path: Path
) -> None:
    """A daemon may be killed after the last node's end is stored, and before the results are."""
    dorad.end()
    with edited(dorad) as database:
        database.execute("""
            CREATE TABLE kept (snapshot);
            CREATE TRIGGER keep AFTER UPDATE ON dataflow WHEN new.snapshot != '{}'
            BEGIN DELETE FROM kept; INSERT INTO kept VALUES (new.snapshot); END""")
    dorad.start()
    dorad.dora_ok("start", counting(tmp_path), "--name", "brief", "--detach")
    wait_until(lambda: seen(tmp_path))
    dorad.dora_ok("stop", "brief")
    with dorad.client() as client:
        before = client.wait("brief").results
    dorad.kill()
    with edited(dorad) as database:
        database.execute("""
            UPDATE dataflow SET status = 'stopping', ended_at = NULL, results = '[]',
            snapshot = (SELECT snapshot FROM kept)""")
    dorad.start()
    with dorad.client() as client:
        ended = client.wait("brief", timeout=10)
    assert (ended.status, ended.results) == ("finished", before)
    assert [result.outcome for result in before] == ["ok", "ok"]
    dorad.dora_ok("down")
