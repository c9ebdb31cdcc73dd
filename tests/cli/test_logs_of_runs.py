"""Log files of `dora run`, and log lines that nodes receive from each other."""

import json
import signal
from pathlib import Path

from tests.cli.dora import dora as command
from tests.cli.fakedaemon import no_daemon
from tests.cli.running import dora, write
from tests.logs.captured import in_files

TALK = """
    import sys
    from dora import Node
    node = Node()
    print("plain")
    print("complaint", file=sys.stderr)
    node.log("debug", "detail")
    node.log("warn", "hot", target="driver", fields={"degrees": 80})
"""
LISTEN = """
    import sys
    from dora import Node
    node = Node()
    with open(f"{sys.argv[1]}.got", "w") as file:
        for event in node:
            if event["type"] == "INPUT":
                print(event["value"][0].as_py().rstrip("\\n"), file=file, flush=True)
"""


def listener(folder: Path, node: str) -> list[str]:
    return (folder / f"{node}.got").read_text().splitlines()


def folder_of_run(folder: Path) -> Path:
    (found,) = [path for path in (folder / "out").iterdir() if path.is_dir()]
    return found


def run_to_end(folder: Path) -> None:
    with dora(folder, "dataflow.yml") as running:
        running.end(0)


def test_every_line_of_a_run_is_in_a_file_of_its_node(tmp_path: Path) -> None:
    write(tmp_path, "nodes: [{id: talk, path: talk.py}]", talk=TALK)
    run_to_end(tmp_path)
    records = in_files(folder_of_run(tmp_path), "talk")
    assert {(r.level, r.stream, r.message) for r in records} == {
        ("stdout", "stdout", "plain"),
        ("stdout", "stderr", "complaint"),
        ("debug", "stdout", "detail"),
        ("warn", "stdout", "hot"),
    }
    (hot,) = [record for record in records if record.level == "warn"]
    assert (hot.target, hot.fields) == ("driver", {"degrees": 80})
    about = json.loads((folder_of_run(tmp_path) / "dataflow.json").read_text())
    assert (about["status"], about["nodes"]) == ("finished", ["talk"])
    shown = command("logs", cwd=tmp_path, env=no_daemon(tmp_path)).stdout
    assert len(shown.splitlines()) == 4


def test_lines_go_to_other_nodes_as_declared(tmp_path: Path) -> None:
    yaml = """
        nodes:
          - id: talk
            path: talk.py
            outputs: [lines, logs]
            send_stdout_as: lines
            send_logs_as: logs
            min_log_level: info
          - {id: raw, path: listen.py, args: raw, inputs: {x: talk/lines}}
          - {id: logs, path: listen.py, args: logs, inputs: {x: talk/logs}}
    """
    write(tmp_path, yaml, talk=TALK, listen=LISTEN)
    run_to_end(tmp_path)
    raw = listener(tmp_path, "raw")
    assert sorted(line for line in raw if not line.startswith("{")) == ["complaint", "plain"]
    assert {json.loads(line)["message"] for line in raw if line.startswith("{")} == {
        "detail",
        "hot",
    }
    logs = [json.loads(line) for line in listener(tmp_path, "logs")]
    assert {(entry["level"], entry["message"]) for entry in logs} == {
        ("stdout", "plain"),
        ("stdout", "complaint"),
        ("WARN", "hot"),
    }
    assert {entry["node_id"] for entry in logs} == {"talk"}
    written = {record.message for record in in_files(folder_of_run(tmp_path), "talk")}
    assert written == {"plain", "complaint", "hot"}


def test_a_log_input_gets_severe_lines_of_all_other_nodes(tmp_path: Path) -> None:
    yaml = """
        nodes:
          - {id: one, path: talk.py}
          - {id: two, path: talk.py}
          - id: watch
            path: watch.py
            args: watch
            inputs: {x: {source: dora/logs/warn, queue_size: 50}}
    """
    watch = LISTEN.replace("file=file, flush=True)", 'file=file, flush=True); print("grave")')
    write(tmp_path, yaml, talk=TALK, watch=watch)
    got = tmp_path / "watch.got"
    with dora(tmp_path, "dataflow.yml") as running:
        running.until(lambda: got.exists() and len(got.read_text().splitlines()) == 4)
        running.signal(signal.SIGINT)
        running.end(0)
    found = [json.loads(line) for line in listener(tmp_path, "watch")]
    assert {(entry["node_id"], entry["message"]) for entry in found} == {
        ("one", "hot"),
        ("two", "hot"),
        ("one", "complaint"),
        ("two", "complaint"),
    }
