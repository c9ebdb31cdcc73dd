"""Nonsense at the boundary of nodes in C: a message says what is wrong, and all others go on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.harness.dataflow import Flow, clean_environment
from tests.libdora.conftest import SANITIZE, Compile, add

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent

# -- payloads that a sender has written by itself

SENDER = """
import struct
import pyarrow as pa
from dora import Node
from dorad.shm import arrow, layout

node = Node()
node.send_output("out", pa.array([{"x": 1}]))  # the first sample, whose place the others take
outlets = node._attachment.connection.outlets["out"]
pool = node._attachment.sender.pool


def push(payload, length=1):
    sample = pool.take(len(payload))
    sample.write(0, payload)
    fields = [1, length, 0, len(payload), sample.offset, 0, sample.segment.number, 0, 0]
    for outlet in outlets:
        outlet.push(layout.ENTRY.pack(*fields, layout.CODE_NESTED, 0, 0), len(payload), 1)
        outlet.peer.wake()


def described(description, nodes):
    head = struct.pack("=I", len(description)) + description + bytes(nodes)
    return head + bytes(-len(head) % 8) + bytes(64)


def node_of(letters, children=None):
    count = b"" if children is None else struct.pack("=H", children)
    return bytes((2, len(letters), 0)) + letters + count


nested = node_of(b"+l", 1) * 1000 + node_of(b"n")
wide = node_of(b"+s", 10_000) + node_of(b"n") * 10_000
lists = described(node_of(b"+l", 1) + node_of(b"l"), 2)[:-64]
push(described(nested, 1001))
push(described(wide, 10_001))
push(lists + struct.pack("=iiii", 0, 2, 1, 3) + bytes(24), length=3)
push(lists + struct.pack("=iiii", 0, 2, 2, 1 << 30) + bytes(24), length=3)
push(b"\\xff" * 5000)
node.send_output("out", pa.array([{"x": 2}]))
node.next(timeout=20)
"""

RECEIVER = """
from dora import Node
from probe import report

for event in Node():
    if event["type"] in ("INPUT", "ERROR"):
        report(event["value"].to_pylist() if event["type"] == "INPUT" else event["error"])
"""


@pytest.mark.long
def test_payloads_that_no_library_writes_are_errors_for_receivers_in_both_languages(
    flow: Flow, compile_node: Compile
) -> None:
    source = {"source": "sender/out", "queue_size": 100}
    flow.node("sender", SENDER, inputs={"end": "c/out"}, outputs=["out"])
    flow.node("python", RECEIVER, inputs={"in": source})
    add(flow, "c", compile_node("echo", HERE / "echo.c"), inputs={"in": source}, outputs=["out"])
    outcome = flow.run(deadline=60).expect(0)
    first, *errors, last = flow.reports("python")
    assert (first, last) == ([{"x": 1}], [{"x": 2}])
    texts = ("nested too deeply", "too many fields", "go backwards", "too few", "too few")
    for error, text in zip(errors, texts, strict=True):
        assert "a message on input 'in' cannot be read: " in error
        assert text in error
    assert "5 of 7 messages on sender/out -> python/in could not be read" in outcome.output
    lines = [line for line in outcome.output.splitlines() if "unreadable: " in line]
    texts = ("fields or 64 levels", "fields or 64 levels", "backwards", "too few", "cannot be read")
    assert len(lines) == 5
    for line, text in zip(lines, texts, strict=True):
        assert "the message on input `in` cannot be read: " in line
        assert text in line


# -- arrays that cannot be sent

REFUSED = {
    "levels": "array of type `+l` cannot be sent from C: unions, views, run-end encoding, and",
    "fields": "types of more than 1024 fields or 64 levels cannot",
    "backwards": "array of type `u` cannot be sent: its offsets go backwards",
    "negative": "its offsets are negative",
    "no offsets": "it has no offsets",
    "length": "the array is not valid, or was released",
    "buffers": "it does not match its type, or was released",
    "format": "an array of type `?` cannot be sent",
    "nothing": "the array is not valid, or was released",
    "released": "the array is not valid, or was released",
}


def test_arrays_that_are_wrong_are_refused_where_they_are_sent(
    flow: Flow, compile_node: Compile
) -> None:
    add(flow, "bad", compile_node("bad", HERE / "bad.c"), outputs=["out"])
    flow.node("python", RECEIVER, inputs={"in": "bad/out"})
    outcome = flow.run().expect(0)
    lines = outcome.output.splitlines()
    for what, text in REFUSED.items():
        (line,) = (line for line in lines if f"stdout bad: {what}: -1 " in line)
        assert text in line
        assert sum("ERROR" in line and text in line for line in lines) > 0, "it is logged, too"
    assert "bad: right: 0 sent" in outcome.output
    # An id whose length counts its zero is the declared one; another one is ignored.
    assert flow.reports("python") == [["a", "b", "c"], list(b"abc")]
    assert "bad: sizeof: 0" in outcome.output
    assert "Ignoring output `output` not in node's output list" in outcome.output


PYTHON_SENDER = """
import pyarrow as pa
from dora import Node
from probe import report

node = Node()
items = pa.array([1])
deep = {}
for level in range(1, 1001):
    items = pa.ListArray.from_arrays(pa.array([0, len(items)], pa.int32()), items)
    deep[level] = items
for level in (63, 64, 400, 1000):
    try:
        node.send_output("out", deep[level])
    except Exception as error:
        report([level, type(error).__name__, str(error)])
names = [f"field{at}" for at in range(10_000)]
node.send_output("out", pa.StructArray.from_arrays([pa.array([1])] * 10_000, names))
node.send_output("out", pa.array([7]))
"""

DEPTHS = """
from dora import Node
from probe import report

def depth(kind):
    return 1 + depth(kind.value_type) if str(kind).startswith("list") else 0

for event in Node():
    if event["type"] == "INPUT":
        kind = event["value"].type
        report([depth(kind), kind.num_fields])
    elif event["type"] == "ERROR":
        report(event["error"])
"""


def test_types_that_are_too_deep_are_refused_in_python_and_wide_ones_go_as_a_stream(
    flow: Flow, compile_node: Compile
) -> None:
    source = {"source": "sender/out", "queue_size": 20}
    flow.node("sender", PYTHON_SENDER, outputs=["out"])
    flow.node("python", DEPTHS, inputs={"in": source})
    add(flow, "c", compile_node("echo", HERE / "echo.c"), inputs={"in": source}, outputs=["out"])
    outcome = flow.run(deadline=60).expect(0)
    refused = flow.reports("sender")
    for _, kind, text in refused:
        assert kind == "RuntimeError"
        assert "it is nested more than 64 levels deep" in text
        assert len(text) < 1000
    assert [level for level, _, _ in refused] == [64, 400, 1000]
    assert flow.reports("python") == [[63, 1], [0, 10_000], [0, 0]]
    assert outcome.output.count("or its type has more than 1024 fields or a name") == 1


CHANGING = """
import psutil
import pyarrow as pa
from dora import Node
from probe import report

node = Node()
sizes = []
for number in range(3000):
    if number in (500, 2999):
        found = [each for each in psutil.process_iter(["cmdline", "cwd", "memory_info"])
                 if each.info["cwd"] == PLACE and each.pid != node_pid()]
        sizes.append(sum(each.info["memory_info"].rss for each in found))
    value = pa.array([{f"field{number}": number, "same": [str(number)]}])
    node.send_output("out", value)
    while (event := node.next(20))["type"] != "INPUT":
        assert event["type"] != "ERROR", event
    assert event["value"].equals(value)
report(sizes[1] - sizes[0])
"""


def test_a_type_that_changes_with_each_message_is_read_and_grows_nothing(
    flow: Flow, compile_node: Compile
) -> None:
    source = CHANGING.replace("PLACE", repr(str(flow.folder))).replace("node_pid()", "os.getpid()")
    flow.node("asker", f"import os\n{source}", inputs={"back": "echo/out"}, outputs=["out"])
    echo = compile_node("echo", HERE / "echo.c")
    add(flow, "echo", echo, inputs={"in": "asker/out"}, outputs=["out"])
    flow.run(deadline=90).expect(0)
    (growth,) = flow.reports("asker")
    if not SANITIZE:  # which keeps freed memory for a while
        assert growth < 8 << 20


# -- nodes that take nothing, and folders that cannot be written


@pytest.mark.long
def test_a_node_that_takes_nothing_is_named_at_the_end(flow: Flow, compile_node: Compile) -> None:
    tool = compile_node("tool", HERE / "tool.c")
    add(flow, "count", tool, args="count 2000 8", outputs=["out"])
    add(flow, "idle", tool, args="idle", inputs={"in": "count/out"})
    outcome = flow.run(stop_after=3, deadline=60)
    assert "1990 of 2000 messages dropped on count/out -> idle/in (queue_size 10)" in outcome.output


def test_a_build_that_may_not_write_into_its_folder_is_named(library: Path, tmp_path: Path) -> None:
    # Root may write everywhere, but for this capability.
    drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner"]
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root needs setpriv (sudo apt-get install util-linux)")
    source = "#include <dora/node_api.h>\nint main(void) { return 0; }\n"
    (tmp_path / "node.c").write_text(source)
    compile_it = f"cc -I{library}/include node.c -L{library}/lib -ldora_node -o node"
    node = {"id": "camera", "path": "./node", "build": compile_it}
    (tmp_path / "dataflow.yml").write_text(yaml.safe_dump({"nodes": [node]}))
    tmp_path.chmod(0o555)
    try:
        done = subprocess.run(
            [*(drop if os.geteuid() == 0 else ()), BIN / "dora", "build", "dataflow.yml"],
            cwd=tmp_path,
            env=clean_environment(BIN),
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        tmp_path.chmod(0o755)
    assert done.returncode == 1
    assert "cannot open output file node: Permission denied" in done.stdout + done.stderr
    assert "node 'camera': a build command exited with code 1; to repeat it: (cd " in done.stderr
