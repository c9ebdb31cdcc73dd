"""The mistakes of beginners: each message says what is wrong, where, and what to do."""

import json
import os
import re
import shlex
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.cli.running import dora, write

TALKER = "from dora import Node\nfor event in Node(): break\n"
TIMER = "inputs: {tick: dora/timer/millis/50}"


def node(*lines: str) -> str:
    """Return a dataflow of one node `a` with these lines."""
    return "\n".join(["nodes:", "  - id: a", *(f"    {line}" for line in lines), ""])


FILES = {
    "a misspelt key": (
        node("path: talker.py", "input: {x: a/b}"),
        "4:5: nodes[0].input: unknown key `input` (did you mean `inputs`?)",
    ),
    "a wrong indent": (
        "nodes:\n  - id: a\n   path: talker.py\n",
        "3:4: not valid YAML: .* (check the indentation)",
    ),
    "a tab": ("nodes:\n  - id: a\n\tpath: t.py\n", "3:1: .*tab.* (use spaces)"),
    "no space after a colon": (
        "nodes:\n  - id:a\n    path: talker.py\n",
        "2:7: not valid YAML: no space after this `:` (write `key: value`)",
    ),
    "the name of a node as its key": (
        "nodes:\n  - talker:\n      path: talker.py\n",
        "2:5: nodes[0]: `talker` is not a key of a node (write `- id: talker`, .*)",
    ),
    "nodes without a dash": (
        "nodes:\n  id: a\n  path: talker.py\n",
        "2:3: nodes: must be a list, not a mapping (begin each entry with `- `)",
    ),
    "outputs as a word": (
        node("path: talker.py", "outputs: image"),
        "4:14: nodes[0].outputs: must be a list, not `image` (write `outputs: [image]`)",
    ),
    "inputs as a list": (
        node("path: talker.py", "inputs:", "  - tick: dora/timer/millis/5"),
        "5:7: nodes[0].inputs: must be a mapping, not a list (write the entries without `- `)",
    ),
    "args as a list": (
        node("path: talker.py", "args: [--fast, 1]"),
        "4:11: nodes[0].args: must be text, not a list (write `args: --fast 1`)",
    ),
    "build as a list": (
        node("path: talker.py", "build: [make, pip install x]"),
        "4:12: nodes[0].build: must be text, not a list (write `build: |`, and each .*)",
    ),
    "env as a list": (
        node("path: talker.py", "env: [A=1]"),
        "4:10: nodes[0].env: must be a mapping of names to values, not a list (write `env: .*)",
    ),
    "inputs as a word": (
        node("path: talker.py", "inputs: a/b"),
        "4:13: nodes[0].inputs: .* (give it a name: `inputs: {name: a/b}`)",
    ),
    "an output that is not declared": (
        node("path: talker.py", "inputs: {x: a/y}", "outputs: [z]"),
        "4:17: nodes[0].inputs.x: `a` has no output `y`; it has z",
    ),
    "an input of an unknown node": (
        node("path: talker.py", "inputs: {x: camera/image}"),
        "4:17: nodes[0].inputs.x: there is no node `camera` (known here: a)",
    ),
    "a timer without `dora/`": (
        node("path: talker.py", "inputs: {tick: timer/millis/5}"),
        "4:20: nodes[0].inputs.tick: there is no node `timer` (write `dora/timer/...`)",
    ),
    "a wrong timer": (
        node("path: talker.py", "inputs: {tick: dora/timer/50ms}"),
        "4:20: .*`dora/timer/50ms` is not a timer (write `dora/timer/millis/100`)",
    ),
    "one id for two nodes": (
        node("path: talker.py") + "  - {id: a, path: talker.py}\n",
        "4:6: nodes[1].id: two nodes with the id `a`, the first in line 2",
    ),
    "a missing file": (
        node("path: talkr.py"),
        "3:5: nodes[0].path: no file `talkr.py` in .* (did you mean `talker.py`?)",
    ),
    "a home folder": (
        node("path: ~/talker.py"),
        "3:5: nodes[0].path: .*`~` is not expanded in a path (write /.*/talker.py)",
    ),
    "arguments in the path": (
        node("path: python talker.py --fast"),
        "3:5: .* (a path holds no arguments: write `path: talker.py` and `args: --fast`)",
    ),
    "a program that is not executable": (
        node("path: ./program"),
        "3:5: nodes[0].path: /.*/program is not executable (`chmod +x` makes it so)",
    ),
}


@pytest.mark.parametrize("mistake", FILES)
def test_a_mistake_in_the_file_is_named_with_its_place_and_its_remedy(
    tmp_path: Path, mistake: str
) -> None:
    text, expected = FILES[mistake]
    (tmp_path / "dataflow.yml").write_text(text)
    (tmp_path / "talker.py").write_text(TALKER)
    (tmp_path / "program").write_text("#!/bin/sh\n")
    pattern = re.escape(f"error: dataflow.yml:{expected}").replace(r"\.\*", ".*")
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        (line,) = run.err.splitlines()
        assert re.fullmatch(pattern, line), line
        assert run.out == ""


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_a_file_in_utf_16_is_refused_with_the_remedy(tmp_path: Path, encoding: str) -> None:
    text = ("\ufeff" if encoding == "utf-16-le" else "") + node("path: talker.py")
    (tmp_path / "dataflow.yml").write_text(text, encoding=encoding)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        assert run.err == (
            "error: dataflow.yml:1:1: the file is UTF-16, not UTF-8 (save it as UTF-8)\n"
        )


def test_windows_line_ends_and_a_byte_order_mark_are_accepted(tmp_path: Path) -> None:
    text = node("path: talker.py", TIMER).replace("\n", "\r\n")
    (tmp_path / "dataflow.yml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (tmp_path / "talker.py").write_bytes(TALKER.replace("\n", "\r\n").encode())
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(0)
        assert run.err == ""


@pytest.mark.parametrize("name", ["talker.py", "my talker.py"])
def test_a_program_in_place_of_a_dataflow_is_answered_with_a_dataflow_that_runs_it(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("print('hello')\n")
    with dora(tmp_path, name) as run:
        run.end(1)
        first, *lines, last = run.err.splitlines()
    assert first == (f"error: {name} is a Python program, not a dataflow. A dataflow that runs it:")
    assert len(lines) == 3
    assert last.strip().startswith("Save it as dataflow.yml")
    (tmp_path / "dataflow.yml").write_text(textwrap.dedent("\n".join(lines)))
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(0)
        assert "hello" in run.out


def test_a_file_that_is_not_there_is_named_with_the_folder(tmp_path: Path) -> None:
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        assert run.err == f"error: dataflow.yml: no such file in {tmp_path}\n"


BUILD = "`build: pip install ...`"
PROGRAMS = {
    "no import": ("node = Node()", "write `from dora import Node`"),
    "no import of pyarrow": ("pa.array([1])", "write `import pyarrow as pa`"),
    "a module that is not installed": (
        "import no_such_module.part",
        f"install no_such_module where the node runs, or write {BUILD} into the node",
    ),
    "a module of types that was not generated": (
        "from messages import scan",
        "the module of your types is written by `dora types generate -o messages.py`",
    ),
    "a value of Arrow where Python needs a number": (
        "import pyarrow as pa\npa.array([4.0])[0] > 1",
        (
            'Arrow values are not numbers of Python: `event["value"][0].as_py()` is one, '
            '`event["value"].to_pylist()` are all, `.to_numpy()` is an array of numpy'
        ),
    ),
    "an event used as an object": (
        "from dora import Node\nfor event in Node(): event.type",
        'an event is a dictionary: write `event["type"]`',
    ),
    "a name that `dora` does not have": (
        "from dora import node",
        "the module `dora` has no `node`: a node needs `from dora import Node`",
    ),
    "a key that no event has": (
        'from dora import Node\nfor event in Node(): event["data"]',
        'if that is an event: the name of its input is `event["id"]`, its data `event["value"]`',
    ),
    "a question at the keyboard": (
        'from dora import Node\nNode()\ninput("which camera?")',
        (
            "a node that dora starts has no keyboard: write `path: dynamic` and start the program "
            "in a terminal"
        ),
    ),
    "data before the name of the output": (
        'from dora import Node\nNode().send_output(b"data", "out")',
        'the name of the output comes first: `node.send_output("name", data)`',
    ),
    "an event that did not come": (
        'from dora import Node\nnode = Node()\nwhile node.try_recv()["type"]: pass',
        (
            "if that is an event: `next()` returns None after the last one, and `try_recv()` while "
            "none waits; check for it, or write `for event in node:`"
        ),
    ),
}


@pytest.mark.parametrize("mistake", PROGRAMS)
def test_a_common_error_in_a_program_is_followed_by_a_hint(tmp_path: Path, mistake: str) -> None:
    source, hint = PROGRAMS[mistake]
    write(tmp_path, node("path: talker.py", TIMER), talker=source)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        lines = run.err.splitlines()
    assert lines[0] == "error: node a exited with code 1"
    assert re.search(r'File ".*talker.py", line \d', "\n".join(lines))
    assert re.fullmatch(f"    hint: {re.escape(hint)}", lines[-1]), lines


def test_the_value_of_an_event_that_has_none_is_answered_with_the_check(tmp_path: Path) -> None:
    source = "  - {id: b, path: b.py, inputs: {tick: dora/timer/hz/20}, outputs: [out]}\n"
    sink = 'from dora import Node\nfor event in Node(): event["value"]\n'
    write(tmp_path, node("path: sink.py", "inputs: {x: b/out}") + source, sink=sink, b=TALKER)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        assert run.err.splitlines()[-1] == (
            "    hint: if that is an event: only those of type INPUT have a value; check "
            '`event["type"] == "INPUT"` first'
        )


def test_a_program_that_never_calls_node_is_answered_with_what_it_lacks(tmp_path: Path) -> None:
    other = "  - {id: b, path: b.py, inputs: {tick: dora/timer/hz/10}}\n"
    write(tmp_path, node("path: talker.py", TIMER) + other, talker="print('hello')", b=TALKER)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        first, hint, _ = run.err.splitlines()
    assert first.startswith("error: node a exited with code 0 before it called Node()")
    assert hint.strip().startswith("hint: a node waits for the start and for messages in a loop")


def test_a_program_that_ends_alone_without_node_is_no_silent_success(tmp_path: Path) -> None:
    write(tmp_path, node("path: talker.py", TIMER), talker="print('hello')")
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(0)
        (line,) = [each for each in run.out.splitlines() if "WARN" in each]
        assert line.endswith(": ended before it called Node(): it took no input and sent no output")
    write(tmp_path, node("path: talker.py"), talker="print('hello')")
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(0)
        assert "WARN" not in run.out


def test_a_program_that_hides_the_module_dora_is_named(tmp_path: Path) -> None:
    write(tmp_path, node("path: talker.py"), talker=TALKER, dora="")
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        assert run.err.splitlines()[-1] == (
            f"    hint: {tmp_path}/dora.py hides the module `dora`: give that file another name"
        )


@pytest.mark.parametrize("name", ["queue", "types", "pyarrow"])
def test_a_program_that_hides_a_module_which_pyarrow_needs_is_named(
    tmp_path: Path, name: str
) -> None:
    lines = (f"path: {name}.py", TIMER, "outputs: [out]")
    write(tmp_path, node(*lines), **{name: f"import pyarrow as pa\n{TALKER}"})
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        assert run.err.splitlines()[-1] == (
            f"    hint: {tmp_path}/{name}.py hides the module `{name}`: give that file another name"
        )


def test_a_syntax_error_in_a_program_is_shown_with_its_line(tmp_path: Path) -> None:
    write(tmp_path, node("path: talker.py"), talker="def talk(:\n")
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        assert f'File "{tmp_path}/talker.py", line 1' in run.err
        assert "SyntaxError" in run.err


def test_a_script_with_windows_line_ends_is_answered_with_the_remedy(tmp_path: Path) -> None:
    write(tmp_path, node("path: ./talker"))
    program = tmp_path / "talker"
    program.write_bytes(b"#!/usr/bin/env python3\r\nprint()\r\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        assert "first line ends as on Windows" in run.err


VALUES = {
    "'text'": "pa.array([value])",
    "{'a': 1}": "pa.array([value])",
    "5": "pa.array([value])",
    "None": "pa.nulls(0)",
    "[1, 2]": "pa.array(values)",
    "numpy.zeros((2, 2))": "pa.array(values.ravel())",
    "pa.table({'a': [1]})": "table.combine_chunks().to_batches()[0]",
}


@pytest.mark.parametrize("value", VALUES)
def test_a_value_that_cannot_be_sent_is_refused_with_what_to_send(
    tmp_path: Path, value: str
) -> None:
    lines = ("path: talker.py", f"args: {json.dumps(shlex.quote(value))}", "outputs: [out]")
    source = """
        import sys
        import numpy
        import pyarrow as pa
        from dora import Node
        Node().send_output("out", eval(sys.argv[1]))
    """
    write(tmp_path, node(*lines), talker=source)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(1)
        last = run.err.splitlines()[-1]
        assert "RuntimeError: invalid data type" in last
        assert VALUES[value] in last


def test_a_message_on_an_output_that_is_not_declared_is_answered_with_the_remedy(
    tmp_path: Path,
) -> None:
    source = """
        import pyarrow as pa
        from dora import Node
        Node().send_output("image", pa.array([1]))
    """
    write(tmp_path, node("path: talker.py", "outputs: [depth]"), talker=source)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(0)
        assert "`outputs: [depth, image]`" in run.out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "--duration", "1s", "missing.yml"], "error: missing.yml: no such file"),
        (["record", "--stop-after", "1s", "missing.yml"], "error: missing.yml: no such file"),
        (["record", "ring", "--stop-after", "1s", "missing.yml"], "error: missing.yml: no such"),
        (["rnu", "x.yml"], "error: no command named 'rnu'; did you mean 'run'?"),
        (
            ["run", "x.yml", "--stop-after"],
            "error: option '--stop-after' requires an argument (see `dora run --help`)",
        ),
        (
            ["topic", "echo", "a/b", "--count"],
            "error: option '--count' requires an argument (see `dora topic echo --help`)",
        ),
    ],
)
def test_a_command_takes_both_names_of_an_option_and_corrects_its_own(
    tmp_path: Path, words: list[str], expected: str
) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "dora", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.startswith(expected)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start a process of another user")
def test_a_daemon_of_another_user_is_named(tmp_path: Path) -> None:
    """A user who started the daemon with sudo does not find it without."""
    other = subprocess.Popen(
        ["/bin/sh", "-c", "read line", "-m", "dorad.daemon.main"],
        user=65534,
        stdin=subprocess.PIPE,
        cwd="/",
    )
    try:
        done = subprocess.run(
            [Path(sys.executable).parent / "dora", "list"],
            env={"PATH": os.defpath, "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        other.communicate(b"\n")
    assert done.returncode == 1
    assert "runs one, which commands of that user reach" in done.stderr


HEAVY = ("asyncio", "yaml", "numpy", "pyarrow", "rich", "psutil", "ssl", "dorad.daemon")


def test_the_list_of_dataflows_imports_no_daemon_and_nothing_heavy(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "dorad.cli", "list"],
        env={"PATH": os.defpath, "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "dorad.control.client" in imported
    assert imported.isdisjoint(HEAVY)
