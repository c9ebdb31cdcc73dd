"""Operators in a running dataflow: real processes, each with one operator or several."""

import signal
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.running import dora
from tests.harness.dataflow import PROBE, dora_run, json_lines
from tests.harness.process import Outcome

pytestmark = pytest.mark.timeout(90)

OPERATOR = """
    import pyarrow as pa
    from dora import DoraStatus
    from probe import report

    class Operator:
        def __init__(self):
            self.count = 0

        def on_event(self, dora_event, send_output):
            kind = dora_event["type"]
"""
COUNTER = f"""{OPERATOR}
            if kind == "INPUT":
                self.count += 1
                send_output("number", pa.array([self.count]), {{"count": self.count}})
                if self.count == 5:
                    return DoraStatus.STOP
            return DoraStatus.CONTINUE
"""
SINK = """
    from dora import Node
    from probe import report

    for event in Node():
        value = event.get("value")
        report([event["type"], event["id"], value and value.to_pylist()])
"""
TICK = {"tick": "dora/timer/millis/20"}


def write(folder: Path, *nodes: dict[str, Any], **scripts: str) -> Path:
    (folder / "probe.py").write_text(PROBE.lstrip(), encoding="utf-8")
    for name, source in scripts.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
    for node in nodes:
        node.setdefault("env", {"PROBE": node["id"]})
    file = folder / "dataflow.yml"
    file.write_text(yaml.safe_dump({"nodes": list(nodes)}, sort_keys=False), encoding="utf-8")
    return file


def operator(name: str, **entry: Any) -> dict[str, Any]:
    return {"id": name, "python": f"{name}.py", **entry}


def sink(**inputs: str) -> dict[str, Any]:
    return {"id": "sink", "path": "sink.py", "inputs": inputs}


def reports(folder: Path, node: str) -> list[Any]:
    return json_lines(folder / f"{node}.jsonl")


def ok(outcome: Outcome) -> Outcome:
    assert outcome.code == 0, outcome.output
    return outcome


def test_the_last_message_before_stop_arrives_and_then_the_output_closes(tmp_path: Path) -> None:
    lone = {"python": "counter.py", "inputs": TICK, "outputs": ["number"]}
    file = write(
        tmp_path, {"id": "ops", "operator": lone}, sink(n="ops/number"), counter=COUNTER, sink=SINK
    )
    ok(dora_run(file))
    assert reports(tmp_path, "sink") == [
        *(["INPUT", "n", [number]] for number in range(1, 6)),
        ["INPUT_CLOSED", "n", None],
        ["STOP", "ALL_INPUTS_CLOSED", None],
    ]


def test_one_operator_ends_and_the_others_in_its_process_continue(tmp_path: Path) -> None:
    on = f"""{OPERATOR}
            report([kind, dora_event.get("id"), self.dataflow_descriptor["nodes"][0]["id"]])
            if kind == "INPUT":
                send_output("number", dora_event["value"])
                self.count += 1
            return DoraStatus.CONTINUE
    """
    operators = [
        operator("counter", inputs=TICK, outputs=["number"]),
        operator("on", inputs={"n": "ops/counter/number"}, outputs=["number"]),
        operator("later", inputs={**TICK, "n": "ops/on/number"}, outputs=["number"]),
    ]
    later = f"""{OPERATOR}
            if kind != "INPUT":
                report(["later", kind, dora_event["id"]])
            elif dora_event["id"] == "tick" and "closed" in vars(self):
                send_output("number", pa.array([100]))
                return DoraStatus.STOP
            if kind == "INPUT_CLOSED":
                self.closed = True
            return DoraStatus.CONTINUE
    """
    file = write(
        tmp_path,
        {"id": "ops", "operators": operators},
        sink(a="ops/counter/number", b="ops/later/number"),
        counter=COUNTER,
        on=on,
        later=later,
        sink=SINK,
    )
    ok(dora_run(file))
    seen = reports(tmp_path, "sink")
    of_a = [each for each in seen if each[1] == "a"]
    assert of_a == [
        *(["INPUT", "a", [n]] for n in range(1, 6)),
        ["INPUT_CLOSED", "a", None],
    ]
    # The first one had ended long before the last one sent this.
    assert seen.index(["INPUT_CLOSED", "a", None]) < seen.index(["INPUT", "b", [100]])
    assert seen[-2:] == [["INPUT_CLOSED", "b", None], ["STOP", "ALL_INPUTS_CLOSED", None]]
    of_ops = reports(tmp_path, "ops")
    assert [each for each in of_ops if each[0] != "later"] == [
        *(["INPUT", "n", "ops"] for _ in range(5)),
        ["INPUT_CLOSED", "n", "ops"],
        ["STOP", "ALL_INPUTS_CLOSED", "ops"],
    ]
    assert ["later", "INPUT_CLOSED", "n"] in of_ops


def test_between_operators_the_array_is_the_same_object(tmp_path: Path) -> None:
    first = f"""
        SENT = []
        {textwrap.dedent(OPERATOR).replace(chr(10), chr(10) + " " * 8)}
                if kind == "INPUT":
                    SENT.append(pa.array(["x" * 100_000]))
                    send_output("text", SENT[-1], {{"number": len(SENT), "list": [1, 2]}})
                    if len(SENT) == 3:
                        return DoraStatus.STOP
                return DoraStatus.CONTINUE
    """
    second = f"""{OPERATOR}
            if kind == "INPUT":
                from first import SENT
                metadata = dora_event["metadata"]
                same = dora_event["value"] is SENT[metadata["number"] - 1]
                report([same, metadata["list"], metadata["timestamp"].tzname()])
            return DoraStatus.CONTINUE
    """
    operators = [
        operator("first", inputs=TICK, outputs=["text"]),
        operator("second", inputs={"t": "ops/first/text"}),
    ]
    file = write(
        tmp_path,
        {"id": "ops", "operators": operators},
        sink(t="ops/first/text"),
        first=first,
        second=second,
        sink=SINK,
    )
    ok(dora_run(file))
    assert reports(tmp_path, "ops") == [[True, [1, 2], "UTC"]] * 3
    assert [each[0] for each in reports(tmp_path, "sink")].count("INPUT") == 3


def test_backpressure_between_operators_loses_nothing(tmp_path: Path) -> None:
    burst = f"""{OPERATOR}
            if kind == "INPUT":
                for number in range(50):
                    send_output("all", pa.array([number]))
                    send_output("some", pa.array([number]))
                return DoraStatus.STOP
            return DoraStatus.CONTINUE
    """
    slow = f"""{OPERATOR}
            import time
            if kind == "INPUT":
                time.sleep(0.002)
                report([dora_event["id"], dora_event["value"][0].as_py()])
            return DoraStatus.CONTINUE
    """
    inputs = {
        "all": {"source": "ops/burst/all", "queue_size": 2, "queue_policy": "backpressure"},
    }
    newest = {"some": {"source": "ops/burst/some", "queue_size": 1}}
    operators = [
        operator("burst", inputs=TICK, outputs=["all", "some"]),
        operator("slow", inputs=inputs),
        {"id": "lazy", "python": "lazy.py", "inputs": newest},
    ]
    lazy = slow.replace("0.002", "0.05")
    file = write(tmp_path, {"id": "ops", "operators": operators}, burst=burst, slow=slow, lazy=lazy)
    ok(dora_run(file))
    seen = reports(tmp_path, "ops")
    assert [number for name, number in seen if name == "all"] == list(range(50))
    some = [number for name, number in seen if name == "some"]
    assert some == sorted(set(some))
    assert some[-1] == 49
    assert len(some) < 50


def test_a_sender_does_not_wait_for_an_operator_that_has_ended(tmp_path: Path) -> None:
    source = """
        import pyarrow as pa
        from dora import Node

        node = Node()
        for number in range(50):
            node.send_output("number", pa.array([number]))
    """
    quits = f"""{OPERATOR}
            return DoraStatus.STOP if kind == "INPUT" else DoraStatus.CONTINUE
    """
    stays = f"""{OPERATOR}
            if kind == "INPUT":
                self.count += 1
            elif kind == "STOP":
                report(self.count)
            return DoraStatus.CONTINUE
    """
    waiting = {"source": "source/number", "queue_size": 2, "queue_policy": "backpressure"}
    operators = [
        operator("quits", inputs={"n": waiting}),
        operator("stays", inputs={"n": waiting}),
    ]
    file = write(
        tmp_path,
        {"id": "source", "path": "source.py", "outputs": ["number"]},
        {"id": "ops", "operators": operators},
        source=source,
        quits=quits,
        stays=stays,
    )
    ok(dora_run(file))
    assert reports(tmp_path, "ops") == [50]


def test_stop_all_ends_all_operators_of_the_process(tmp_path: Path) -> None:
    ends = f"""{OPERATOR}
            return DoraStatus.STOP_ALL if kind == "INPUT" else DoraStatus.CONTINUE
    """
    other = f"""{OPERATOR}
            report([kind, dora_event["id"]])
            return DoraStatus.CONTINUE
    """
    operators = [
        operator("ends", inputs={"tick": "dora/timer/millis/50"}),
        operator("other", inputs={"tick": "dora/timer/secs/100"}),
    ]
    file = write(tmp_path, {"id": "ops", "operators": operators}, ends=ends, other=other)
    ok(dora_run(file))
    assert reports(tmp_path, "ops")[-1] == ["STOP", "MANUAL"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("ValueError('no light')", "on_event failed on INPUT tick: ValueError: no light"),
        ("SystemExit(0)", "on_event failed on INPUT tick: SystemExit: 0"),
        ("asyncio.CancelledError()", "on_event failed on INPUT tick: CancelledError: "),
        ("KeyboardInterrupt", ""),
    ],
)
def test_a_failing_operator_fails_its_node_and_others_receive_its_last_message(
    tmp_path: Path, error: str, text: str
) -> None:
    fails = f"""
    import asyncio
{OPERATOR}
            raise {error}
    """
    other = f"""{OPERATOR}
            report([kind, dora_event["id"]])
            return DoraStatus.CONTINUE
    """
    operators = [
        operator("fails", inputs=TICK),
        operator("other", inputs={"tick": "dora/timer/secs/100"}),
    ]
    file = write(tmp_path, {"id": "ops", "operators": operators}, fails=fails, other=other)
    outcome = dora_run(file)
    assert outcome.code == 1
    line = f"operator 'fails' ({tmp_path / 'fails.py'}): {text}"
    assert (line if text else error) in outcome.output
    assert "node ops exited with code 1" in outcome.output.replace("'", "")
    assert reports(tmp_path, "ops")[-1] == ["STOP", "MANUAL"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("class Operator:\n    def on_input(self, *_): ...", "`on_input` is from dora before"),
        ("VALUE = 1", "has no class `Operator`"),
        ("import missing_module_x", "ModuleNotFoundError"),
    ],
)
def test_an_invalid_operator_file_is_reported_before_the_start(
    tmp_path: Path, source: str, expected: str
) -> None:
    file = write(tmp_path, {"id": "ops", "operators": [operator("bad", inputs=TICK)]}, bad=source)
    outcome = dora_run(file)
    assert outcome.code == 1
    assert f"operator 'bad' ({tmp_path / 'bad.py'}): " in outcome.output
    assert expected in outcome.output


def test_a_missing_operator_file_is_reported_with_line_and_column(tmp_path: Path) -> None:
    file = write(tmp_path, {"id": "ops", "operators": [operator("some", inputs=TICK)]}, sone="")
    outcome = dora_run(file)
    assert outcome.code == 1
    assert "dataflow.yml:5:" in outcome.output
    assert "nodes[0].operators[0].python: no file `some.py`" in outcome.output
    assert "did you mean `sone.py`?" in outcome.output


def test_prints_of_operators_go_to_the_output_that_one_of_them_declares(tmp_path: Path) -> None:
    prints = f"""{OPERATOR}
            if kind == "INPUT":
                print("from", __name__)
                return DoraStatus.STOP
            return DoraStatus.CONTINUE
    """
    operators = [
        operator("one", inputs=TICK, outputs=["lines"], send_stdout_as="lines"),
        operator("two", inputs=TICK),
    ]
    file = write(
        tmp_path,
        {"id": "ops", "operators": operators},
        sink(lines="ops/one/lines"),
        one=prints,
        two=prints,
        sink=SINK,
    )
    ok(dora_run(file))
    lines = [each[2] for each in reports(tmp_path, "sink") if each[0] == "INPUT"]
    assert sorted(lines) == [["from one\n"], ["from two\n"]]


def test_an_undeclared_output_is_ignored_with_one_warning(tmp_path: Path) -> None:
    sends = f"""{OPERATOR}
            if kind == "INPUT":
                self.count += 1
                send_output("nowhere", b"x")
            return DoraStatus.STOP if self.count == 3 else DoraStatus.CONTINUE
    """
    file = write(tmp_path, {"id": "ops", "operator": operator("sends", inputs=TICK)}, sends=sends)
    outcome = ok(dora_run(file))
    assert outcome.output.count("operator 'sends': ignoring output `nowhere`") == 1


def test_operators_are_built_first(tmp_path: Path) -> None:
    built = f"""{OPERATOR}
            from pathlib import Path
            report(Path("made").read_text())
            return DoraStatus.STOP
    """
    body = operator("built", inputs=TICK, build="cp source made")
    (tmp_path / "source").write_text("by the build")
    ok(dora_run(write(tmp_path, {"id": "ops", "operator": body}, built=built)))
    assert reports(tmp_path, "ops") == ["by the build"]


def test_parameters_and_failures_of_sources_reach_the_operators_concerned(
    tmp_path: Path,
) -> None:
    fails = """
        from dora import Node
        node = Node()
        node.send_output("out", b"last")
        raise SystemExit(3)
    """
    listens = f"""{OPERATOR}
            if kind == "NODE_FAILED":
                report([dora_event["id"], dora_event["value"]["affected_input_ids"]])
            elif kind in ("INPUT_CLOSED", "STOP"):
                report([kind, dora_event["id"]])
            return DoraStatus.CONTINUE
    """
    deaf = f"""{OPERATOR}
            if kind == "INPUT":
                self.count += 1
            else:
                report(["deaf", kind])
            return DoraStatus.STOP if self.count == 20 else DoraStatus.CONTINUE
    """
    operators = [
        operator("listens", inputs={"a": "source/out", "b": "source/out"}),
        operator("deaf", inputs=TICK),
    ]
    file = write(
        tmp_path,
        {"id": "source", "path": "source.py", "outputs": ["out"]},
        {"id": "ops", "operators": operators},
        source=fails,
        listens=listens,
        deaf=deaf,
    )
    assert dora_run(file).code == 1
    assert reports(tmp_path, "ops") == [
        ["INPUT_CLOSED", "a"],
        ["INPUT_CLOSED", "b"],
        ["source", ["a", "b"]],
        ["STOP", "ALL_INPUTS_CLOSED"],
    ]


def test_a_process_forked_by_an_operator_does_not_affect_the_node(tmp_path: Path) -> None:
    forks = f"""{OPERATOR}
            import os
            if kind == "INPUT":
                self.count += 1
                if self.count == 1:
                    child = os.fork()
                    if child == 0:
                        try:
                            send_output("number", pa.array([-1]))
                        except RuntimeError as error:
                            report(str(error)[:47])
                        os._exit(0)
                    os.waitpid(child, 0)
                send_output("number", pa.array([self.count]))
            return DoraStatus.STOP if self.count == 3 else DoraStatus.CONTINUE
    """
    body = operator("forks", inputs=TICK, outputs=["number"])
    file = write(
        tmp_path, {"id": "ops", "operator": body}, sink(n="ops/number"), forks=forks, sink=SINK
    )
    ok(dora_run(file))
    assert reports(tmp_path, "ops") == ["this Node belongs to its parent process and can"]
    values = [each[2] for each in reports(tmp_path, "sink") if each[0] == "INPUT"]
    assert values == [[1], [2], [3]]


def test_no_operator_sleeps_while_it_has_messages(tmp_path: Path) -> None:
    source = """
        import pyarrow as pa
        from dora import Node

        node = Node()
        for number in range(3000):
            node.send_output("number", pa.array([number]))
    """
    relay = f"""{OPERATOR}
            if kind == "INPUT" and dora_event["id"] == "n":
                send_output("number", dora_event["value"])
            return DoraStatus.CONTINUE
    """
    counts = """
        from dora import Node
        from probe import report

        numbers = [event["value"][0].as_py() for event in Node() if event["type"] == "INPUT"]
        report(numbers == list(range(3000)))
    """

    def one(name: str, source: str, **more: Any) -> dict[str, Any]:
        waiting = {"source": source, "queue_size": 3, "queue_policy": "backpressure"}
        return {
            "id": name,
            "python": "relay.py",
            "inputs": {"n": waiting, **more},
            "outputs": ["number"],
        }

    # Timers with different intervals make the leader change all the time.
    operators = [
        one("a", "source/number"),
        one("b", "ops/a/number", t="dora/timer/millis/3"),
        one("c", "ops/b/number", t="dora/timer/millis/7"),
        one("d", "ops/c/number"),
    ]
    file = write(
        tmp_path,
        {"id": "source", "path": "source.py", "outputs": ["number"]},
        {"id": "ops", "operators": operators},
        {
            "id": "counts",
            "path": "counts.py",
            "inputs": {"n": {"source": "ops/d/number", "queue_policy": "backpressure"}},
        },
        source=source,
        relay=relay,
        counts=counts,
    )
    flow = yaml.safe_load(file.read_text(encoding="utf-8"))
    file.write_text(yaml.safe_dump({**flow, "exit_when_nodes_finish": True}), encoding="utf-8")
    ok(dora_run(file))
    assert reports(tmp_path, "counts") == [True]


def test_types_are_checked_between_operators_and_beyond(tmp_path: Path) -> None:
    sends = f"""{OPERATOR}
            if kind != "INPUT":
                return DoraStatus.CONTINUE
            send_output("number", pa.array(["no number"]))
            return DoraStatus.STOP
    """
    hears = f"""{OPERATOR}
            if kind == "INPUT":
                report(dora_event["value"].to_pylist())
            return DoraStatus.CONTINUE
    """
    typed = "std/core/v1/Float64"
    operators = [
        operator("sends", inputs=TICK, outputs=["number"], output_types={"number": typed}),
        operator("hears", inputs={"n": "ops/sends/number"}, input_types={"n": typed}),
    ]
    file = write(tmp_path, {"id": "ops", "operators": operators}, sends=sends, hears=hears)
    outcome = ok(dora_run(file))
    expected = "type mismatch: ops/sends/number -> ops/hears/n: not std/core/v1/Float64: expected"
    assert expected in outcome.output
    assert reports(tmp_path, "ops") == [["no number"]]
    flow = yaml.safe_load(file.read_text(encoding="utf-8"))
    flow["nodes"][0]["env"]["DORA_RUNTIME_TYPE_CHECK"] = "error"
    file.write_text(yaml.safe_dump(flow), encoding="utf-8")
    refused = dora_run(file)
    assert refused.code == 1
    assert "on_event failed on INPUT tick: TypeMismatchError: type mismatch:" in refused.output


def test_operators_may_have_latched_and_limited_inputs(tmp_path: Path) -> None:
    once = f"""{OPERATOR}
            if kind == "INPUT":
                self.count += 1
                send_output("map", pa.array([self.count]))
                send_output("fast", pa.array([self.count]))
            return DoraStatus.STOP if self.count == 20 else DoraStatus.CONTINUE
    """
    hears = f"""{OPERATOR}
            if kind == "INPUT":
                report([dora_event["id"], dora_event["value"][0].as_py()])
            return DoraStatus.CONTINUE
    """
    inputs = {
        "map": {"source": "first/once/map", "latched": True},
        "fast": {"source": "first/once/fast", "max_rate_hz": 10, "queue_size": 1},
    }
    file = write(
        tmp_path,
        {"id": "first", "operators": [operator("once", inputs=TICK, outputs=["map", "fast"])]},
        {"id": "ops", "operators": [operator("hears", inputs=inputs), operator("idle")]},
        once=once,
        hears=hears,
        idle=hears,
    )
    flow = yaml.safe_load(file.read_text(encoding="utf-8"))
    flow["nodes"][1]["operators"][1]["inputs"] = {"map": inputs["map"]}
    file.write_text(yaml.safe_dump(flow), encoding="utf-8")
    ok(dora_run(file))
    seen = reports(tmp_path, "ops")
    assert [number for name, number in seen if name == "map"][-1] == 20
    fast = [number for name, number in seen if name == "fast"]
    assert 0 < len(fast) < 20
    assert fast[-1] == 20


LOOPS = """
    import time
    from pathlib import Path
    from dora import DoraStatus

    class Operator:
        def on_event(self, dora_event, send_output):
            if dora_event["type"] == "INPUT":
                while not Path("stop").exists():
                    sum(range(1000))
            return DoraStatus.CONTINUE
"""
WORKS = """
    import time
    import pyarrow as pa
    from dora import DoraStatus

    class Operator:
        def on_event(self, dora_event, send_output):
            while dora_event["type"] == "INPUT" and NAME == "sends" and not stopped():
                send_output("out", pa.array([1]))
                time.sleep(0.2)
            return DoraStatus.CONTINUE
"""


@pytest.mark.long
def test_an_operator_that_loops_beside_others_is_named(tmp_path: Path) -> None:
    head = "    from pathlib import Path\n    stopped = Path('stop').exists\n"
    operators = [
        operator("loops", inputs=TICK),
        operator("waits", inputs={**TICK, "x": "ops/sends/out"}),
        operator("sends", inputs=TICK, outputs=["out"]),
    ]
    write(
        tmp_path,
        {"id": "ops", "operators": operators},
        loops=LOOPS,
        waits=head + "    NAME = 'waits'" + WORKS,
        sends=head + "    NAME = 'sends'" + WORKS,
    )
    with dora(tmp_path, "dataflow.yml") as run:
        run.until_prints("has not called dora for 10 s")
        (tmp_path / "stop").touch()
        run.signal(signal.SIGINT)
        run.end()
        (line,) = [each for each in run.out.splitlines() if "has not called dora" in each]
    assert "WARN" in line
    assert "operator 'loops' has not called dora" in line
    assert "`health_check_timeout`" in line
