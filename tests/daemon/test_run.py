"""One run of a dataflow: its results, its end, and its cancellation."""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from dorad.daemon.broker.listener import own_socket
from dorad.daemon.rules.exits import Outcome
from dorad.daemon.run import DataflowRun
from dorad.daemon.runmodel import RunOptions, RunServices
from dorad.dataflow.errors import DataflowError
from dorad.dataflow.load import load
from dorad.launch.command import LaunchContext
from dorad.launch.holder.client import HolderClient
from dorad.logrecord import LogRecord
from tests.cli.running import write
from tests.harness.waiting import until

YAML = """
    nodes:
      - {id: source, path: source.py, outputs: [out]}
      - {id: sink, path: sink.py, inputs: {x: source/out}}
"""
SOURCE = """
    import pyarrow as pa
    from dora import Node
    node = Node()
    for number in range(20):
        node.send_output("out", pa.array([number]))
"""
SINK = """
    from dora import Node
    for event in Node():
        if event["type"] == "INPUT":
            print(event["value"][0])
"""


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dora-test-") as base:
        monkeypatch.setenv("XDG_RUNTIME_DIR", base)
        yield Path(base) / "dora"


@pytest.fixture
async def holder() -> AsyncIterator[HolderClient]:
    async with HolderClient.start() as holder:
        yield holder


class Writing(RunServices):
    """Stores snapshots as the test says."""

    def __init__(self, write: Callable[[], None]) -> None:
        self.store_snapshot = write  # type: ignore[method-assign]


def context(folder: Path) -> LaunchContext:
    return LaunchContext(load(folder / "dataflow.yml"), dict(os.environ))


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_a_run_returns_the_result_of_each_node_and_the_counters(
    tmp_path: Path, holder: HolderClient, runtime: Path
) -> None:
    write(tmp_path, YAML, source=SOURCE, sink=SINK)
    records: list[LogRecord] = []
    tasks = asyncio.all_tasks()
    run = DataflowRun("id", context(tmp_path), holder, own_socket(), watch=records.extend)
    ended = await run.run()
    assert ended.ok
    assert [result.node for result in ended.results] == ["source", "sink"]
    (edge,) = ended.edges
    assert edge.sent == 20
    assert edge.dropped == 20 - len(records)
    assert records[-1].message == "19"
    assert asyncio.all_tasks() == tasks
    assert files(runtime) == []


async def test_a_cancelled_run_leaves_nothing(
    tmp_path: Path, holder: HolderClient, runtime: Path
) -> None:
    source = "import time; open('started', 'w').close(); time.sleep(600)"
    write(tmp_path, YAML, source=source, sink=SINK)
    run = DataflowRun("id", context(tmp_path), holder, own_socket())
    task = asyncio.create_task(run.run())
    await until((tmp_path / "started").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files(runtime) == []


def short_run(folder: Path, holder: HolderClient) -> tuple[DataflowRun, list[LogRecord]]:
    """Return a run that ends after half a second, and the lines that it will log."""
    records: list[LogRecord] = []
    options = RunOptions(stop_after=0.5)
    run = DataflowRun(
        "id", context(folder), holder, own_socket(), watch=records.extend, options=options
    )
    return run, records


async def test_a_node_that_is_ready_after_the_time_to_stop_is_stopped_at_once_and_was_too_slow(
    tmp_path: Path, holder: HolderClient
) -> None:
    late = """
        import time
        time.sleep(2)
        from dora import Node
        for event in Node():
            print(event["type"])
    """
    yaml = "nodes: [{id: late, path: late.py, inputs: {tick: dora/timer/millis/50}}]"
    write(tmp_path, yaml, late=late)
    run, records = short_run(tmp_path, holder)
    ended = await run.run()
    assert not ended.ok
    assert "did not call Node() before the dataflow was stopped" in ended.results[0].reason
    lines = [each.message for each in records if each.node == "late"]
    assert lines == ["STOP", ended.results[0].reason]


async def test_a_start_that_takes_too_long_is_stopped_and_fails(
    tmp_path: Path, holder: HolderClient
) -> None:
    write(tmp_path, YAML, source="import time; time.sleep(300)", sink=SINK)
    run, records = short_run(tmp_path, holder)
    running = asyncio.create_task(run.run())
    await until(
        lambda: any("has started: no Node() yet in" in record.message for record in records)
    )
    run.stop(0.0)
    ended = await running
    assert not ended.ok
    failures = {result.node: result.reason for result in ended.results if not result.ok}
    assert "did not call Node()" in failures["source"]
    assert "`startup_timeout`" in failures["source"]


async def test_every_missing_program_is_reported_at_once(
    tmp_path: Path, holder: HolderClient
) -> None:
    write(tmp_path, YAML)
    with pytest.raises(DataflowError) as caught:
        DataflowRun("id", context(tmp_path), holder, own_socket())
    assert [problem.key for problem in caught.value.problems] == ["nodes[0].path", "nodes[1].path"]
    assert all(problem.line for problem in caught.value.problems)


async def test_a_program_that_cannot_be_executed_is_a_failed_node(
    tmp_path: Path, holder: HolderClient
) -> None:
    write(tmp_path, "nodes: [{id: broken, path: ./broken}]")
    (tmp_path / "broken").write_bytes(b"\x7fELF nonsense")
    (tmp_path / "broken").chmod(0o755)
    ended = await DataflowRun("id", context(tmp_path), holder, own_socket()).run()
    (result,) = ended.results
    assert (result.outcome, result.exit) == (Outcome.FAILED, None)
    assert result.reason.startswith("could not be started: ")


async def test_many_lines_of_a_node_that_ends_at_once_are_all_read(
    tmp_path: Path, holder: HolderClient
) -> None:
    write(
        tmp_path,
        "nodes: [{id: talk, path: talk.py}]",
        talk="for number in range(20000): print('line', number)",
    )
    records: list[LogRecord] = []

    def take(batch: Sequence[LogRecord]) -> None:
        records.extend(batch)

    await DataflowRun("id", context(tmp_path), holder, own_socket(), watch=take).run()
    assert [record.message for record in records] == [f"line {n}" for n in range(20000)]


async def test_a_burst_of_changes_is_stored_a_few_times_including_the_last(
    tmp_path: Path, holder: HolderClient
) -> None:
    write(tmp_path, YAML, source=SOURCE, sink=SINK)
    written: list[int] = []
    last = asyncio.Event()

    def write_down() -> None:
        """Write slowly, as with a large dataflow."""
        end = time.monotonic() + 0.01
        while time.monotonic() < end:
            pass
        written.append(run.snapshot()["broker"].params["sink"]["number"])
        if written[-1] == 199:
            last.set()

    services = Writing(write_down)
    run = DataflowRun("id", context(tmp_path), holder, own_socket(), services=services)
    for number in range(200):
        run.broker.params.replace("sink", {"number": number})
        await asyncio.sleep(0)
    assert written[0] < 199
    assert len(written) < 100
    async with asyncio.timeout(10):
        await last.wait()


async def test_no_state_is_stored_in_the_middle_of_a_change(
    tmp_path: Path, holder: HolderClient
) -> None:
    """The next daemon would wait for ever for a node that has a result and counts as running."""
    write(tmp_path, YAML, source=SOURCE, sink=SINK)
    kept: list[tuple[set[str], set[str]]] = []

    def keep() -> None:
        state = run.snapshot()["supervisor"]
        ended = {name for name, node in state["nodes"].items() if node["result"]}
        kept.append((ended, set(state["life"]["running"])))

    services = Writing(keep)
    run = DataflowRun("id", context(tmp_path), holder, own_socket(), services=services)
    await run.run()
    assert [(ended, running) for ended, running in kept if ended & running] == []
    assert kept[-1] == ({"source", "sink"}, set())
