"""`dora run`: output, exit codes and options."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cli.dora import DORA
from tests.cli.running import dora, write

SOURCE = """
    import pyarrow as pa
    from dora import Node
    node = Node()
    for number in range(5):
        node.send_output("out", pa.array([number]))
"""
SINK = """
    from dora import Node
    for event in Node():
        value = event["value"].to_pylist() if event["type"] == "INPUT" else event.get("value")
        print(event["type"], event["id"], value)
    print("the end")
"""
PIPE = """
    nodes:
      - id: source
        path: source.py
        outputs: [out]
      - id: sink
        path: sink.py
        inputs: {numbers: source/out}
"""
TICKING = """
    nodes:
      - id: sink
        path: sink.py
        inputs: {tick: dora/timer/millis/50}
"""


def printed(output: str, node: str) -> list[str]:
    """Return the lines of one node, without time and level."""
    return [line.split(f"{node}: ", 1)[1] for line in output.splitlines() if f" {node}: " in line]


def test_a_dataflow_ends_by_itself_when_its_source_has_ended(tmp_path: Path) -> None:
    write(tmp_path, PIPE, source=SOURCE, sink=SINK)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(0)
        assert printed(run.out, "sink") == [
            *(f"INPUT numbers [{number}]" for number in range(5)),
            "INPUT_CLOSED numbers None",
            "STOP ALL_INPUTS_CLOSED None",
            "the end",
        ]
        assert run.err == ""


def test_a_failed_node_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    write(tmp_path, PIPE, source=SOURCE + "    raise ValueError('boom')\n", sink=SINK)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        first, *rest = run.err.splitlines()
        assert first == "error: node source exited with code 1"
        assert rest[-1] == "    ValueError: boom"
        assert "Traceback" in rest[0]


def test_consumers_learn_of_a_failure_between_close_and_stop(tmp_path: Path) -> None:
    write(tmp_path, PIPE, source=SOURCE + "    raise SystemExit(3)\n", sink=SINK)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        *_, closed, failed, stopped, end = printed(run.out, "sink")
    assert closed == "INPUT_CLOSED numbers None"
    assert failed.startswith("NODE_FAILED source {")
    assert "'error': 'exited with code 3'" in failed
    assert "'affected_input_ids': ['numbers']" in failed
    assert (stopped, end) == ("STOP ALL_INPUTS_CLOSED None", "the end")


def test_a_node_that_ends_before_it_connects_fails_the_others(tmp_path: Path) -> None:
    write(tmp_path, PIPE, source="raise SystemExit('no camera')", sink=SINK)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        assert run.err.splitlines() == [
            "error: node source exited with code 1",
            "    no camera",
            "error: 1 other node failed because of that: sink",
        ]
        assert "node source ended before it called Node()" in run.out


def test_a_node_that_waits_says_one_line_when_another_one_fails_to_start(tmp_path: Path) -> None:
    why = "the dataflow cannot start: node source ended before it called Node()"
    sink = SINK.replace("from dora", "open('waits', 'w').close()\n    from dora")
    source = """
        import os, time
        while not os.path.exists("waits"):
            time.sleep(0.01)
        time.sleep(0.2)
        import no_such_module
    """
    write(tmp_path, PIPE, source=source, sink=sink)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        assert printed(run.out, "sink") == [why]
        assert [line[9:] for line in run.out.splitlines() if "sink" in line] == [
            f"stderr sink: {why}"
        ]
        assert f"ERROR  [dora]: {why}" in run.out


def test_a_node_that_is_not_started_any_more_is_reported_like_one_that_waits(
    tmp_path: Path,
) -> None:
    yaml = """
        nodes:
          - {id: source, path: no/such/program, outputs: [out]}
          - {id: sink, path: sink.py, inputs: {numbers: source/out}}
    """
    write(tmp_path, yaml, sink=SINK)
    program = tmp_path / "no/such/program"
    program.parent.mkdir(parents=True)
    program.write_text("not a program")
    program.chmod(0o755)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        assert run.err.splitlines()[-1] == "error: 1 other node failed because of that: sink"


def test_each_node_that_cannot_import_is_reported_with_its_own_error(tmp_path: Path) -> None:
    yaml = "nodes: [{id: b, path: b.py}, {id: a, path: a.py}]"
    write(tmp_path, yaml, a="import no_such_module_a", b="import no_such_module_b")
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        heads = [line for line in run.err.splitlines() if line.startswith("error")]
        assert heads == ["error: node a exited with code 1", "error: node b exited with code 1"]
        assert "no_such_module_a" in run.err
        assert "no_such_module_b" in run.err


def test_a_dataflow_with_large_messages_runs_without_posix_ipc(tmp_path: Path) -> None:
    """As with Python 3.14, for which posix_ipc has no wheel."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/posix_ipc.py").write_text("raise ImportError('no wheel')")
    source = SOURCE.replace("pa.array([number])", "pa.array(range(100_000))")
    sink = """
        from dora import Node
        print(sum(event["value"][-1].as_py() for event in Node() if event["type"] == "INPUT"))
    """
    write(tmp_path, PIPE, source=source, sink=sink)
    with dora(tmp_path, "dataflow.yml", env={"PYTHONPATH": str(tmp_path / "modules")}) as run:
        run.end(0)
        assert printed(run.out, "sink") == ["499995"]


def test_a_program_outside_a_dataflow_says_one_line(tmp_path: Path) -> None:
    write(tmp_path, "nodes: []", alone="from dora import Node; Node()")
    alone = subprocess.run(
        [sys.executable, "alone.py"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert alone.returncode == 1
    (line,) = alone.stderr.splitlines()
    assert line.startswith("this process is not part of a dataflow: start it with `dora run`")


def test_a_lone_program_without_dora_may_run(tmp_path: Path) -> None:
    write(tmp_path, "nodes: [{id: hello, path: hello.py}]", hello="print('hello')")
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(0)
        assert printed(run.out, "hello") == ["hello"]


def test_a_missing_script_is_named_with_its_place_in_the_file(tmp_path: Path) -> None:
    write(tmp_path, PIPE, sink=SINK)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        (line,) = run.err.splitlines()
        assert line.startswith("error: dataflow.yml:4:")
        assert "nodes[0].path" in line
        assert "source.py" in line


def test_unsupported_keys_are_refused_before_any_node_starts(tmp_path: Path) -> None:
    yaml = TICKING + "        deploy: {machine: other}\n"
    write(tmp_path, yaml, sink=SINK)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        assert "dataflow.yml:6:" in run.err
        assert "deploy" in run.err
        assert run.out == ""


def test_stop_after_stops_a_timer_fed_node(tmp_path: Path) -> None:
    write(tmp_path, TICKING, sink=SINK)
    with dora(tmp_path, "dataflow.yml", "--stop-after", "8s") as run:
        assert 5 <= run.end(0) < 25
        words = printed(run.out, "sink")
        assert words[-2:] == ["STOP MANUAL None", "the end"]
        assert len(words) > 5


@pytest.mark.long
def test_a_start_that_is_too_slow_fails_and_names_the_node(tmp_path: Path) -> None:
    yaml = TICKING + "      - {id: slow, path: slow.py, outputs: [out]}\n"
    write(tmp_path, yaml, sink=SINK, slow="import time\nwhile True: time.sleep(0.1)")
    with dora(tmp_path, "dataflow.yml", "--stop-after", "8s") as run:
        run.end(1)
        assert "is stopped before it has started: no Node() yet in: slow" in run.out
        assert printed(run.out, "sink")[-2:] == ["STOP MANUAL None", "the end"]
        (error,) = run.err.splitlines()[-1:]
        assert error.startswith("error: node slow did not call Node() before the dataflow was")
        assert "`startup_timeout`" in error


@pytest.mark.long
def test_a_node_that_calls_node_only_while_it_is_stopped_was_too_slow(tmp_path: Path) -> None:
    slow = """
        import signal, threading
        stopped = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stopped.set())
        stopped.wait()
        from dora import Node
        Node()
        print("it called Node()")
    """
    write(tmp_path, "nodes: [{id: slow, path: slow.py, outputs: [out]}]", slow=slow)
    with dora(tmp_path, "dataflow.yml", "--stop-after", "8s") as run:
        run.end(1)
        assert "it called Node()" in run.out
        assert "node slow did not call Node() before the dataflow was stopped" in run.err


@pytest.mark.long
def test_a_program_without_dora_may_run_until_it_is_stopped(tmp_path: Path) -> None:
    write(tmp_path, "nodes: [{id: plain, path: plain.py}]", plain="import time; time.sleep(600)")
    with dora(tmp_path, "dataflow.yml") as run:
        run.until(
            lambda: any(
                "plain.py" in Path(f"/proc/{pid}/cmdline").read_text() for pid in run.processes()
            )
        )
        run.signal(signal.SIGINT)
        run.end(0)
        assert "Node()" not in run.out + run.err


def test_exit_when_nodes_finish_ends_a_node_that_has_a_timer_too(tmp_path: Path) -> None:
    yaml = PIPE.replace("source/out}", "source/out, tick: dora/timer/millis/50}")
    write(tmp_path, yaml, source=SOURCE, sink=SINK)
    with dora(tmp_path, "--exit-when-nodes-finish", "dataflow.yml") as run:
        run.end(0)
        assert "STOP ALL_INPUTS_CLOSED None" in printed(run.out, "sink")


def test_the_flag_overrides_the_file(tmp_path: Path) -> None:
    yaml = PIPE.replace("source/out}", "source/out, tick: dora/timer/millis/50}")
    write(tmp_path, yaml + "    exit_when_nodes_finish: true\n", source=SOURCE, sink=SINK)
    options = ("--exit-when-nodes-finish=false", "--stop-after", "8s")
    with dora(tmp_path, "dataflow.yml", *options) as run:
        run.end(0)
        assert "STOP MANUAL None" in printed(run.out, "sink")


def test_a_value_of_the_flag_that_is_neither_true_nor_false_is_a_usage_error(
    tmp_path: Path,
) -> None:
    with dora(tmp_path, "dataflow.yml", "--exit-when-nodes-finish=maybe") as run:
        run.end(2)
        assert run.err == (
            "error: invalid value for '--exit-when-nodes-finish': "
            "'maybe' is not one of 'true', 'false' (see `dora run --help`)\n"
        )


def test_shell_nodes_need_permission(tmp_path: Path) -> None:
    write(tmp_path, "nodes: [{id: sh, path: shell, args: echo it is $((6 * 7))}]")
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        assert "--allow-shell-nodes" in run.err
    with dora(tmp_path, "dataflow.yml", "--allow-shell-nodes") as run:
        run.end(0)
        assert printed(run.out, "sh") == ["it is 42"]


def test_env_overrides_the_dataflow_and_not_the_node(tmp_path: Path) -> None:
    yaml = """
        env: {A: dataflow, B: dataflow}
        nodes:
          - id: show
            path: show.py
            env: {B: node}
    """
    show = "import os; print(*(os.environ.get(x) for x in 'ABC'))"
    write(tmp_path, yaml, show=show)
    options = ("--env", "A=run", "--env", "B=run", "--env", "C=x=y")
    with dora(tmp_path, "dataflow.yml", *options) as run:
        run.end(0)
        assert printed(run.out, "show") == ["run node x=y"]


def test_env_with_a_dollar_is_refused(tmp_path: Path) -> None:
    write(tmp_path, TICKING, sink=SINK)
    with dora(tmp_path, "dataflow.yml", "--env", "A=$HOME") as run:
        run.end(2)
        assert "`$` is not expanded" in run.err


def test_json_lines_are_one_object_each(tmp_path: Path) -> None:
    write(tmp_path, PIPE, source=SOURCE, sink=SINK)
    with dora(tmp_path, "dataflow.yml", "--log-format", "json") as run:
        run.end(0)
        records = [json.loads(line) for line in run.out.splitlines()]
        assert {record["node_id"] for record in records} == {"sink"}
        assert records[-1]["message"] == "the end"


def test_the_log_level_hides_less_severe_lines(tmp_path: Path) -> None:
    talk = """
        from dora import Node
        node = Node()
        node.log_info("small")
        node.log_error("grave")
    """
    write(tmp_path, "nodes: [{id: talk, path: talk.py}]", talk=talk)
    with dora(tmp_path, "dataflow.yml", env={"DORA_LOG_LEVEL": "error"}) as run:
        run.end(0)
        assert "grave" in run.out
        assert "small" not in run.out


def test_a_wrong_log_level_is_a_usage_error(tmp_path: Path) -> None:
    write(tmp_path, TICKING, sink=SINK)
    with dora(tmp_path, "dataflow.yml", "--log-level", "loud") as run:
        run.end(2)
        assert "loud" in run.err


def test_build_commands_run_before_the_nodes(tmp_path: Path) -> None:
    yaml = "nodes: [{id: made, path: made.py, build: cp template.py made.py}]"
    write(tmp_path, yaml, template="print('made')")
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(0)
        assert printed(run.out, "made")[-1] == "made"


def test_a_failed_build_starts_nothing(tmp_path: Path) -> None:
    yaml = "nodes: [{id: made, path: template.py, build: 'false'}]"
    write(tmp_path, yaml, template="print('made')")
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        assert "node 'made': a build command exited with code 1" in run.err
        assert printed(run.out, "made") == []


def test_an_address_is_downloaded_into_the_current_folder(tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.mkdir()
    write(served, "nodes: [{id: hello, path: hello.py}]")
    write(tmp_path, "", hello="print('hello')")
    (tmp_path / "dataflow.yml").unlink()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *rest: Quiet(*rest, directory=str(served))
    )
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/dataflow.yml"
        with dora(tmp_path, address) as run:
            run.end(0)
            assert printed(run.out, "hello") == ["hello"]
        server.shutdown()


def test_nodes_run_in_the_folder_of_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "flow"
    folder.mkdir()
    write(folder, "nodes: [{id: where, path: where.py}]", where="import os; print(os.getcwd())")
    with dora(tmp_path, "flow/dataflow.yml") as run:
        run.end(0)
        assert printed(run.out, "where") == [str(folder)]


def test_drops_are_reported_unless_the_queue_size_is_one(tmp_path: Path) -> None:
    yaml = """
        nodes:
          - {id: source, path: source.py, outputs: [out]}
          - id: slow
            path: slow.py
            inputs:
              few: {source: source/out, queue_size: 3}
              newest: {source: source/out, queue_size: 1}
    """
    source = SOURCE.replace("range(5)", "range(50)")
    slow = """
        import os, time
        from dora import Node
        node = Node()
        while not os.path.exists("sent"):
            time.sleep(0.01)
        for event in node:
            pass
    """
    write(tmp_path, yaml, source=source + "    open('sent', 'w').close()\n", slow=slow)
    few = "note: 47 of 50 messages dropped on source/out -> slow/few (queue_size 3)"
    newest = "note: 49 of 50 messages dropped on source/out -> slow/newest (queue_size 1)"
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(0)
        assert run.err.splitlines() == [few]
    (tmp_path / "sent").unlink()
    with dora(tmp_path, "dataflow.yml", "--log-level", "debug") as run:
        run.end(0)
        assert set(run.err.splitlines()) == {few, newest}


def test_a_closed_pipe_stops_the_dataflow(tmp_path: Path) -> None:
    write(tmp_path, TICKING, sink=SINK)
    reading, writing = os.pipe()
    with dora(tmp_path, "dataflow.yml", stdout=writing) as run:
        os.close(writing)
        with os.fdopen(reading) as reader:
            assert "INPUT tick" in reader.readline()
        assert run.end() < 15


@pytest.mark.long
def test_unread_output_does_not_keep_a_run_from_stopping(tmp_path: Path) -> None:
    chatter = """
        from dora import Node
        for event in Node():
            for _ in range(50):
                print("x" * 200)
    """
    write(tmp_path, TICKING, sink=chatter)
    reading, writing = os.pipe()
    with dora(tmp_path, "dataflow.yml", "--stop-after", "8s", stdout=writing) as run:
        os.close(writing)
        run.end(0, deadline=25)
        assert "the last log lines were not read" in run.err
    os.close(reading)


def test_sockets_of_runs_that_crashed_are_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    write(tmp_path, TICKING, sink=SINK)
    with dora(tmp_path, "dataflow.yml") as run:
        run.until_prints("INPUT tick")
        run.process.kill()
        run.process.wait()
        assert len(run.sockets) == 2
        run.until(lambda: not run.processes(), 5.0)
        again = {"XDG_RUNTIME_DIR": str(run.runtime)}
        with dora(tmp_path, "dataflow.yml", "--stop-after", "8s", env=again) as second:
            second.end(0)
        assert run.sockets == []


def test_a_dataflow_may_need_more_descriptors_than_programs_may_open(tmp_path: Path) -> None:
    nodes = [{"id": "limited", "path": "limited.py"}]
    nodes += [{"id": f"n{i}", "path": "dynamic"} for i in range(60)]  # each takes three
    limited = """
        import resource
        print("may open", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    """
    write(tmp_path, json.dumps({"nodes": nodes}), limited=limited)
    usual, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (150, most))
    try:
        with dora(tmp_path, "dataflow.yml") as run:
            run.end(0)
            assert printed(run.out, "limited") == ["may open 150"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (usual, most))


def test_a_run_imports_only_what_it_needs(tmp_path: Path) -> None:
    write(tmp_path, PIPE, source=SOURCE, sink=SINK)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *DORA[1:], "run", "dataflow.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "dorad.daemon.run" in imported
    others = {"psutil", "apsw", "websockets", "numpy", "pyarrow", "pyroute2"}
    if sys.version_info < (3, 14):  # whose asyncio has some
        others.add("dataclasses")  # to make one takes forty times as long as to make a struct
    unused = {"dorad.link.frames", "dorad.logs.journal.forward", "dorad.node.attach"}
    assert not imported & (others | unused)


WITH_SECRET = """
    nodes:
      - id: reader
        path: reader.py
        outputs: [out]
        secrets: [api-key]
      - id: sink
        path: sink.py
        inputs: {numbers: reader/out}
    record: {folder: recordings}
"""
READER = """
    import os
    from pathlib import Path
    import pyarrow as pa
    from dora import Node
    folder = Path(os.environ["CREDENTIALS_DIRECTORY"])
    print("value", (folder / "api-key").read_text()[::-1], folder)
    Node().send_output("out", pa.array([1]))
"""


def test_nodes_get_secrets_from_a_folder_and_no_log_or_recording_has_them(tmp_path: Path) -> None:
    value = "correct-horse-battery"
    secrets = tmp_path / "mine"
    secrets.mkdir()
    write(tmp_path, WITH_SECRET, reader=READER, sink=SINK)
    words = ("dataflow.yml", "--secrets", "mine")
    with dora(tmp_path, *words) as run:
        run.end(1)
        assert "nodes[0].secrets: node `reader`: secret `api-key` is not on this" in run.err
        assert str(secrets / "api-key") in run.err
    (secrets / "api-key").write_text(value)
    (secrets / "api-key").chmod(0o644)
    with dora(tmp_path, *words) as run:
        run.end(1)
        assert "chmod 600" in run.err
    (secrets / "api-key").chmod(0o600)
    with dora(tmp_path, *words) as run:
        run.end(0)
        (line,) = [line for line in printed(run.out, "reader") if line.startswith("value")]
    assert line.split()[1] == value[::-1]
    assert not Path(line.split()[2]).exists()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("recordings" in path.parts for path in files)
    assert [path for path in files if value.encode() in path.read_bytes()] == [secrets / "api-key"]
