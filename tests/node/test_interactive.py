"""A node whose inputs are typed on a real terminal."""

import asyncio
import contextlib
import os
import pty
import select
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from dorad.node import events
from dorad.node.offline.interactive import PromptReceiver, parse
from dorad.procinfo import stat_fields
from tests.harness.dataflow import clean_environment
from tests.harness.waiting import DEADLINE_S, wait_until
from tests.node.bed import run_source

ECHO = """
    from dora import Node

    node = Node()
    for event in node:
        print("EVENT", event["type"], event["id"])
        if event["type"] == "INPUT":
            node.send_output("echo", event["value"], event["metadata"])
    print("END", node.next(), node.try_recv(), node.is_empty())
"""


class Terminal:
    """A process on a pseudo-terminal, and its output."""

    def __init__(self, source: str, folder: Path) -> None:
        argv = [sys.executable, "-c", textwrap.dedent(source)]
        env = clean_environment(Path(sys.executable).parent)
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(argv[0], argv, env)
        self.text = ""

    def see(self, text: str) -> str:
        """Wait until the text is printed; return what was printed before it since last time."""
        deadline = time.monotonic() + DEADLINE_S
        while text not in self.text:
            ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no {text!r} after {self.text!r}"
            try:
                part = os.read(self._fd, 65536)
            except OSError:
                part = b""
            assert part, f"no {text!r} at the end of {self.text!r}"
            self.text += part.decode().replace("\r\n", "\n")
        before, _, self.text = self.text.partition(text)
        return before

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def interrupt(self) -> None:
        """Type Ctrl-C once the process waits for a line.

        Before, Python would only note the signal, and then wait.
        """
        wait_until(lambda: stat_fields(self.pid)[0], lambda state: state == b"S")
        self.type("\x03")

    def give(self, input_id: str, data: str) -> None:
        self.see("Input id (none to stop): ")
        self.type(f"{input_id}\n")
        self.see("Data: ")
        self.type(data)

    def end(self) -> int:
        """Wait for the end of the process; return its exit code."""
        while True:
            try:
                if not os.read(self._fd, 65536):
                    break
            except OSError:
                break
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, 9)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        os.close(self._fd)


@contextlib.contextmanager
def terminal(source: str, folder: Path) -> Iterator[Terminal]:
    started = Terminal(source, folder)
    try:
        yield started
    finally:
        started.close()


def test_typed_inputs_arrive_and_outputs_are_shown(tmp_path: Path) -> None:
    with terminal(ECHO, tmp_path) as node:
        node.give("number", "[1, 2]\n")
        node.see("EVENT INPUT number\noutput echo: [[1,2]] (list<item: int64>)\n")
        node.give("text/a", "hello there\n")
        node.see('EVENT INPUT text/a\noutput echo: ["hello there"] (string)\n')
        node.see("Input id (none to stop): ")
        node.type("\n")
        node.see("EVENT STOP MANUAL\nEND None None True\n")
        assert node.end() == 0


def test_ctrl_d_sends_no_data_and_stops_the_node(tmp_path: Path) -> None:
    with terminal(ECHO, tmp_path) as node:
        node.give("tick", "\x04")
        node.see("output echo: 0 nulls (null)\n")
        node.see("Input id (none to stop): ")
        node.type("\x04")
        node.see("EVENT STOP MANUAL\n")
        assert node.end() == 0


def test_an_invalid_answer_is_explained_and_asked_for_again(tmp_path: Path) -> None:
    with terminal(ECHO, tmp_path) as node:
        node.see("Input id (none to stop): ")
        node.type("a b\n")
        node.see("'a b' is not a valid input id")
        node.give("a", "HEX:0\n")
        node.see("hexadecimal")
        node.see("Data: ")
        node.type("HEX:00ff\n")
        node.see("output echo: [0,255] (uint8)\n")


def test_a_node_ends_while_a_prompt_is_open(tmp_path: Path) -> None:
    source = """
        import asyncio
        from dora import Node

        node = Node()
        print(node.next(timeout=0.05)["error"])
        print(node.try_recv(), node.is_empty(), node.drain())
        print(asyncio.run(node.recv_async(0.05))["error"])
    """
    with terminal(source, tmp_path) as node:
        node.see("Timeout event stream error")
        node.see("None True []\n")
        node.see("Timeout event stream error")
        assert node.end() == 0


def test_ctrl_c_ends_a_node_that_waits(tmp_path: Path) -> None:
    with terminal(ECHO, tmp_path) as node:
        node.see("Input id (none to stop): ")
        node.interrupt()
        node.see("KeyboardInterrupt")
        assert node.end() != 0


def test_without_a_terminal_a_node_refuses(tmp_path: Path) -> None:
    ran = run_source("import dora; dora.Node()", cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.startswith("this process is not part of a dataflow")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", pa.array([5])),
        ("1.5", pa.array([1.5])),
        ("null", pa.nulls(1)),
        ("true", pa.array([True])),
        ('"5"', pa.array(["5"])),
        ("", pa.array([""])),
        ("[1, 2", pa.array(["[1, 2"])),
        ("[1, 2]", pa.array([[1, 2]])),
        ('{"a": 1, "b": [1]}', pa.array([{"a": 1, "b": [1]}])),
        ("HEX:", pa.array([], pa.uint8())),
        ("HEX:00ff", pa.array([0, 255], pa.uint8())),
    ],
)
def test_typed_data_is_json_text_or_bytes(text: str, expected: pa.Array) -> None:
    assert parse(text).equals(expected)


def test_data_may_be_the_one_column_of_an_arrow_file(tmp_path: Path) -> None:
    path = tmp_path / "data.arrow"

    def write(batch: pa.RecordBatch, times: int) -> None:
        with pa.ipc.new_file(path, batch.schema) as file:
            for _ in range(times):
                file.write(batch)

    write(pa.record_batch({"x": [1, 2]}), 2)
    assert parse(f"FILE:{path}").equals(pa.array([1, 2, 1, 2]))
    write(pa.record_batch({"x": [1], "y": [2]}), 1)
    with pytest.raises(ValueError, match=r"must have one column, and has \['x', 'y'\]"):
        parse(f"FILE:{path}")
    with pytest.raises(ValueError, match="nowhere cannot be read"):
        parse("FILE:nowhere")


def test_values_that_arrow_cannot_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        parse("[1, [2]]")


async def test_each_answer_goes_to_one_of_several_waiting_calls() -> None:
    answers = [events.tick("a", {}), events.tick("b", {}), events.stop(events.MANUAL)]
    asked = threading.Semaphore(0)

    def question() -> events.Event:
        assert asked.acquire(timeout=DEADLINE_S)
        return answers.pop(0)

    receiver = PromptReceiver(question)
    tasks = [asyncio.create_task(receiver.recv_async(None)) for _ in range(4)]
    await asyncio.sleep(0)
    for _ in range(3):
        asked.release()
    received = await asyncio.gather(*tasks)
    assert sorted(event["id"] for event in received if event) == ["MANUAL", "a", "b"]
    assert received.count(None) == 1
    assert receiver.ended
    with pytest.raises(RuntimeError, match="closed"):
        receiver.drain()


def test_a_closed_terminal_stops_the_node() -> None:
    def question() -> events.Event:
        raise OSError(5, "Input/output error")

    receiver = PromptReceiver(question)
    assert receiver.next(DEADLINE_S) == events.stop(events.MANUAL)
    assert receiver.next(None) is None
