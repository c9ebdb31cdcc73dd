"""What `dora run` does when nodes crash, hang, stop, start too late or fall silent."""

import ast
import itertools
import signal
from pathlib import Path

import psutil
import pytest

from tests.cli.running import Running, dora, write

LATE_S = 10.0
"""Tolerated delay on a busy machine; an idle one needs a few hundredths."""

SINK = """
    import time
    from dora import Node
    for event in Node():
        value = event["value"].to_pylist() if event["type"] == "INPUT" else None
        print((event["type"], event["id"], value, event.get("reason"), time.monotonic()))
"""


def events_of(run: Running, node: str = "sink") -> list[tuple[str, str, object, str | None, float]]:
    """Return the events of a sink: type, id, value, reason, time."""
    mark = f" {node}: ("
    output = [line.split(mark, 1)[1] for line in run.out.splitlines() if mark in line]
    return [ast.literal_eval("(" + each) for each in output]


def times(run: Running, word: str) -> list[float]:
    """Return the times at which nodes printed `<word> <monotonic seconds>`."""
    return [float(line.split()[-1]) for line in run.out.splitlines() if f": {word} " in line]


def kinds(run: Running, node: str = "sink") -> list[str]:
    return [each[0] for each in events_of(run, node)]


CRASH = """
    nodes:
      - id: crash
        path: crash.py
        outputs: [out]
        restart_policy: {policy}
        {keys}
      - {{id: sink, path: sink.py, inputs: {{x: crash/out}}}}
"""


def crashing(policy: str, *keys: str) -> str:
    return CRASH.format(policy=policy, keys="\n        ".join(keys))


def test_a_crashing_node_is_restarted_with_growing_delays_until_its_limit(tmp_path: Path) -> None:
    crash = """
        import time
        import pyarrow as pa
        from dora import Node
        node = Node()
        print("starts", time.monotonic(), flush=True)
        node.send_output("out", pa.array([node.restart_count()]))
        print("dies", time.monotonic(), flush=True)
        raise SystemExit(7)
    """
    keys = ("max_restarts: 3", "restart_delay: 0.4", "max_restart_delay: 0.6")
    write(tmp_path, crashing("on-failure", *keys), crash=crash, sink=SINK)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        assert run.err == "error: node crash exited with code 7; gave up after 3 restarts\n"
        gaps = [b - d for d, b in zip(times(run, "dies"), times(run, "starts")[1:], strict=False)]
        for gap, least, most in zip(gaps, (0.4, 0.6, 0.6), (0.5, 0.6, 0.6), strict=True):
            assert least <= gap <= most + LATE_S
        assert [each[2] for each in events_of(run) if each[0] == "INPUT"] == [[0], [1], [2], [3]]
        after_data = [kind for kind in kinds(run) if kind != "INPUT"]
        assert after_data == ["NODE_RESTARTED"] * 3 + ["INPUT_CLOSED", "NODE_FAILED", "STOP"]


def test_a_node_that_fails_once_and_then_exits_with_0_has_succeeded(tmp_path: Path) -> None:
    crash = """
        from dora import Node
        node = Node()
        print(node.is_restart(), node.restart_count())
        raise SystemExit(0 if node.is_restart() else 1)
    """
    write(tmp_path, crashing("on-failure"), crash=crash, sink=SINK)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(0)
        assert run.err == ""
        assert "crash: False 0" in run.out
        assert "crash: True 1" in run.out
        assert kinds(run) == ["NODE_RESTARTED", "INPUT_CLOSED", "STOP"]


def test_restart_policy_always_restarts_until_the_stop(tmp_path: Path) -> None:
    crash = """
        from dora import Node
        node = Node()
        print("life", node.restart_count(), flush=True)
    """
    write(tmp_path, crashing("always", "restart_delay: 0.1"), crash=crash, sink=SINK)
    with dora(tmp_path, "dataflow.yml") as run:
        run.until_prints("crash: life 3")
        run.signal(signal.SIGINT)
        run.end(0)
    assert kinds(run)[-1] == "STOP"


def test_the_restart_count_is_reset_after_each_window(tmp_path: Path) -> None:
    crash = """
        import time
        from dora import Node
        node = Node()
        time.sleep(0.3)
        raise SystemExit(0 if node.restart_count() == 4 else 1)
    """
    keys = ("max_restarts: 1", "restart_window: 0.2")
    write(tmp_path, crashing("on-failure", *keys), crash=crash, sink=SINK)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(0)


def test_a_node_that_exits_before_node_and_is_restarted_does_not_abort_the_start(
    tmp_path: Path,
) -> None:
    crash = """
        from pathlib import Path
        if not Path("tried").exists():
            Path("tried").touch()
            raise SystemExit(1)
        from dora import Node
        Node()
    """
    write(tmp_path, crashing("on-failure"), crash=crash, sink=SINK)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(0)
        assert kinds(run)[-1] == "STOP"


def test_messages_sent_while_a_node_was_down_reach_its_next_process(tmp_path: Path) -> None:
    yaml = """
        nodes:
          - {id: source, path: source.py, outputs: [out]}
          - id: sink
            path: sink.py
            restart_policy: on-failure
            restart_delay: 1
            inputs:
              x: {source: source/out, queue_size: 5}
    """
    source = """
        import time
        import pyarrow as pa
        from pathlib import Path
        from dora import Node
        node = Node()
        node.send_output("out", pa.array([0]))
        while not Path("down").exists():
            time.sleep(0.01)
        for number in range(1, 21):
            node.send_output("out", pa.array([number]))
        while not Path("up").exists():
            time.sleep(0.01)
    """
    sink = """
        import os
        from pathlib import Path
        from dora import Node
        got = []
        for event in Node():
            if event["type"] == "INPUT":
                got += event["value"].to_pylist()
            if got == [0]:
                Path("down").touch()
                os._exit(1)
            Path("up").touch()
        print("got", got)
    """
    write(tmp_path, yaml, source=source, sink=sink)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(0)
        assert "sink: got [16, 17, 18, 19, 20]" in run.out


def test_an_interrupt_does_not_wait_for_a_restart_delay(tmp_path: Path) -> None:
    keys = ("restart_delay: 1000",)
    write(tmp_path, crashing("on-failure", *keys), crash="raise SystemExit(1)", sink=SINK)
    with dora(tmp_path, "dataflow.yml") as run:
        run.until_prints("restarting in")
        run.signal(signal.SIGINT)
        run.end(1)


def test_a_run_whose_holder_was_killed_ends_despite_restart_policies(tmp_path: Path) -> None:
    crash = """
        from dora import Node
        node = Node()
        print("alive", flush=True)
        node.next()
    """
    write(tmp_path, crashing("always"), crash=crash, sink=SINK)
    with dora(tmp_path, "dataflow.yml") as run:
        run.until_prints("crash: alive")
        (holder,) = psutil.Process(run.process.pid).children()
        holder.kill()
        run.end(1)
        assert "the process holder has exited" in run.err


WATCHED = """
    nodes:
      - id: watched
        path: watched.py
        restart_policy: on-failure
        max_restarts: 1
        {key}
        inputs: {{tick: dora/timer/millis/50}}
        outputs: [out]
      - {{id: sink, path: sink.py, inputs: {{x: watched/out}}}}
"""


def delays_after(run: Running, word: str) -> list[float]:
    """Return the seconds from each print of `word` to the event at the sink."""
    ends = [each[4] for each in events_of(run) if each[0] in ("NODE_RESTARTED", "INPUT_CLOSED")]
    return [end - output for output, end in zip(times(run, word), ends, strict=True)]


def test_a_node_that_does_not_return_to_dora_is_killed_and_restarted(tmp_path: Path) -> None:
    watched = """
        import time
        from dora import Node
        node = Node()
        for _ in range(5):
            node.next()
        print("hangs", time.monotonic(), flush=True)
        while True:
            pass
    """
    yaml = WATCHED.format(key="health_check_timeout: 1.0")
    write(tmp_path, yaml, watched=watched, sink=SINK)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        assert "killed because it had not called dora for 1 s; gave up" in run.err
        assert all(0.7 <= delay <= 1 + LATE_S for delay in delays_after(run, "hangs"))


def test_a_process_that_hangs_after_it_dropped_its_node_is_killed_and_restarted(
    tmp_path: Path,
) -> None:
    watched = """
        import time
        from dora import Node
        node = Node()
        node.next()
        del node
        print("hangs", time.monotonic(), flush=True)
        time.sleep(1000)
    """
    yaml = WATCHED.format(key="health_check_timeout: 1.0")
    write(tmp_path, yaml, watched=watched, sink=SINK)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        assert "killed because it had not ended 1 s after it dropped its Node; gave up" in run.err
        assert all(0.7 <= delay <= 1 + LATE_S for delay in delays_after(run, "hangs"))


def test_a_node_that_is_sigstopped_while_it_waits_is_killed_too(tmp_path: Path) -> None:
    watched = """
        import os, signal, threading, time
        from dora import Node
        node = Node()
        def stop():
            time.sleep(0.8)
            print("halts", time.monotonic(), flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
        threading.Thread(target=stop, daemon=True).start()
        while True:
            node.next()
    """
    yaml = WATCHED.format(key="health_check_timeout: 1.0").replace("millis/50", "secs/100")
    write(tmp_path, yaml, watched=watched, sink=SINK)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        assert all(0.7 <= delay <= 1 + LATE_S for delay in delays_after(run, "halts"))


@pytest.mark.long
def test_working_waiting_and_blocked_nodes_are_healthy(tmp_path: Path) -> None:
    yaml = """
        nodes:
          - id: worker
            path: worker.py
            health_check_timeout: 2.5
            inputs: {tick: dora/timer/millis/500}
            outputs: [out]
          - {id: idle, path: sink.py, health_check_timeout: 2.5, inputs: {x: silent/out}}
          - {id: silent, path: dynamic, outputs: [out]}
          - {id: held, path: held.py, health_check_timeout: 2.5, outputs: [out]}
          - id: slow
            path: slow.py
            inputs:
              x: {source: held/out, queue_size: 1, queue_policy: backpressure}
    """
    worker = """
        import time
        from dora import Node
        node = Node()
        begun = time.monotonic()
        for event in node:
            end = time.monotonic() + 0.4
            while time.monotonic() < end:
                pass
            if end - begun > 6:
                print("long enough", flush=True)
    """
    held = """
        import pyarrow  # takes seconds on a busy machine: not between two calls of the node
        from dora import Node
        node = Node()
        while node.next(timeout=0.001)["type"] != "STOP":
            node.send_output("out", b"x")
    """
    slow = """
        import time
        from dora import Node
        for event in Node():
            time.sleep(3)
    """
    write(tmp_path, yaml, worker=worker, held=held, slow=slow, sink=SINK)
    with dora(tmp_path, "dataflow.yml") as run:
        run.until_prints("long enough")
        assert "killed" not in run.out + run.err


def test_a_node_that_starts_too_slowly_is_killed_and_restarted(tmp_path: Path) -> None:
    watched = """
        import os, time
        # When the process began: a busy interpreter takes a part of its second to come here.
        began = int(open("/proc/self/stat").read().rpartition(")")[2].split()[19])
        print("begins", began / os.sysconf("SC_CLK_TCK"), flush=True)
        time.sleep(600)
    """
    yaml = WATCHED.format(key="startup_timeout: 1.0")
    write(tmp_path, yaml, watched=watched, sink=SINK)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        first, *_ = run.err.splitlines()
        assert first == (
            "error: node watched was killed because it had not called Node() within 1 s;"
            " gave up after 1 restart"
        )
        (between,) = (b - a for a, b in itertools.pairwise(times(run, "begins")))
        assert 0.9 <= between <= 1 + LATE_S


def test_a_silent_input_breaks_and_recovers_and_closes_separately(tmp_path: Path) -> None:
    yaml = """
        nodes:
          - {id: source, path: source.py, outputs: [out]}
          - id: sink
            path: sink.py
            inputs:
              x: {source: source/out, input_timeout: 0.6}
    """
    source = """
        import time
        from pathlib import Path
        import pyarrow as pa
        from dora import Node
        node = Node()
        time.sleep(1)  # longer than the timeout: an input without a first message does not break
        for number in (1, 2, 3):
            node.send_output("out", pa.array([number]))
            print("sends", time.monotonic(), flush=True)
            while not Path(f"broken-{number}").exists():
                time.sleep(0.01)
    """
    sink = """
        import time
        from pathlib import Path
        from dora import Node
        number = 0
        for event in Node():
            if event["type"] == "INPUT":
                (number,) = event["value"].to_pylist()
            print((event["type"], event["id"], None, event.get("reason"), time.monotonic()))
            if event.get("reason") == "timeout":
                Path(f"broken-{number}").touch()
    """
    write(tmp_path, yaml, source=source, sink=sink)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(0)
        output = times(run, "sends")
        got = events_of(run)
    broken = [each[4] for each in got if each[:4:3] == ("INPUT_CLOSED", "timeout")]
    recovered = [each[4] for each in got if each[0] == "INPUT_RECOVERED"]
    assert [each[0] for each in got if each[0] != "INPUT"] == [
        *["INPUT_CLOSED", "INPUT_RECOVERED"] * 2,
        *["INPUT_CLOSED", "INPUT_CLOSED", "STOP"],
    ]
    assert got[-2][3] == "finished"
    for sent, reported in zip(output, broken, strict=True):
        assert 0.4 <= reported - sent <= 0.6 + LATE_S
    for sent, reported in zip(output[1:], recovered, strict=True):
        assert reported - sent <= LATE_S


def test_a_node_that_exits_with_0_may_use_up_its_restarts(tmp_path: Path) -> None:
    yaml = """
        nodes:
          - {id: short, path: short.py, restart_policy: always, max_restarts: 2}
    """
    write(tmp_path, yaml, short="from dora import Node\nNode()\nprint('lived')\n")
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(0)
        assert run.out.count("stdout short: lived") == 3
        assert "short: exited with code 0; gave up after 2 restarts" in run.out
