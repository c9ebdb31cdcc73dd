"""The report on a failed dataflow: root causes first, then a count of their consequences."""

import re
import sys
from collections.abc import Iterable, Sequence

from msgspec import Struct

from dorad.daemon.rules.exits import Outcome, Result
from dorad.logs.excerpt import excerpt
from dorad.natural import natural

MAX_NAMES = 8
"""Maximum nodes that the report names among those that failed only because of another."""

MAX_LINES_SIZE = 200_000
"""Characters of all lines of a report; the failures after them have headlines only."""


HINTS = (
    (
        r"ModuleNotFoundError: No module named 'dora'",
        "install dorad in the Python environment that the node runs in",
    ),
    (
        r"ModuleNotFoundError: No module named 'messages'",
        "the module of your types is written by `dora types generate -o messages.py`",
    ),
    (
        r"ModuleNotFoundError: No module named '(\w+)",
        r"install \1 where the node runs, or write `build: pip install ...` into the node",
    ),
    (
        r"ImportError: cannot import name '(\w+)' from 'dora' \(.+/dorad/compat/dora/",
        r"the module `dora` has no `\1`: a node needs `from dora import Node`",
    ),
    (
        r"ImportError: cannot import name '\w+' from .*'dora'.* \((.+[^/])\)",
        r"\1 hides the module `dora`: give that file another name",
    ),
    (
        (
            r"(?:Import|Attribute|Runtime|Value)Error: .*"
            r"(?:multiarray|_ARRAY_API|numpy\.(?:dtype|core)\b|compiled using NumPy)"
        ),
        (
            "numpy and a module that uses it do not fit: `dora build` says which package is "
            "the reason; `pip install --force-reinstall numpy pyarrow` mends it"
        ),
    ),
    (
        r".*: error while loading shared libraries: libdora_node\.so\S*:",
        (
            "install the package libdora-node1, of the version of dorad, or link the program with "
            "the flags of `dora cflags --libs`"
        ),
    ),
    (
        r".*: error while loading shared libraries: ([^:\s]+): cannot open shared object file",
        r"install the package that has \1: `ldd PROGRAM` lists all that are missing",
    ),
    (r"NameError: name 'Node' is not defined", "write `from dora import Node`"),
    (r"NameError: name 'pa' is not defined", "write `import pyarrow as pa`"),
    (r"NameError: name 'np' is not defined", "write `import numpy as np`"),
    (
        r"AttributeError: '(?:_Tick|dict)' object has no attribute '(type|id|value|metadata)'",
        r'an event is a dictionary: write `event["\1"]`',
    ),
    (
        r"KeyError: '(value|metadata)'",
        (
            r"if that is an event: only those of type INPUT have a \1; check "
            '`event["type"] == "INPUT"` first'
        ),
    ),
    (
        r"KeyError: '(?:data|input|topic)'",
        ('if that is an event: the name of its input is `event["id"]`, its data `event["value"]`'),
    ),
    (
        r"(?:TypeError: |AttributeError: ').*\bpyarrow\.lib\.\w+(?:Scalar|Array)\b",
        (
            'Arrow values are not numbers of Python: `event["value"][0].as_py()` is one, '
            '`event["value"].to_pylist()` are all, `.to_numpy()` is an array of numpy'
        ),
    ),
    (
        r"AttributeError: 'Node' object has no attribute '(?:send|publish|emit|output|write)'",
        'a node sends with `node.send_output("name", data)`',
    ),
    (
        (
            r"AttributeError: 'Node' object has no attribute "
            r"'(?:recv|receive|read|get|events?|spin|run|loop|subscribe|on_event)'"
        ),
        "a node receives with `for event in node:`, or one event with `node.next()`",
    ),
    (
        r"TypeError: 'type' object is not (?:iterable|an iterator)",
        "if that is `Node`: write `node = Node()`, with parentheses",
    ),
    (
        r"TypeError: Node\.\w+\(\) missing 1 required positional argument: 'self'",
        "write `node = Node()`, with parentheses",
    ),
    (
        r"TypeError: 'NoneType' object is not subscriptable",
        (
            "if that is an event: `next()` returns None after the last one, and `try_recv()` while "
            "none waits; check for it, or write `for event in node:`"
        ),
    ),
    (
        r"EOFError: EOF when reading a line",
        (
            "a node that dora starts has no keyboard: write `path: dynamic` and start the program "
            "in a terminal"
        ),
    ),
    (
        r"TypeError: output_id must be a str",
        'the name of the output comes first: `node.send_output("name", data)`',
    ),
    (r"env: .*\\r.*: No such file", r"its first line ends as on Windows: `sed -i 's/\\r$//'`"),
)
"""Errors of Python that mean a common mistake, and what to do about it."""


class Block(Struct, frozen=True):
    """One failure: a headline, and what the node wrote to stderr."""

    headline: str
    lines: tuple[str, ...] = ()


NO_NODE = (
    "hint: a node waits for the start and for messages in a loop: `from dora import Node`, then "
    "`for event in Node():`"
)
"""What a program lacks that ends well but never calls `Node()`."""

MAX_EVENT_SIZE = 3500
"""Bytes of stderr in NODE_FAILED. The text must fit into an event of a link, which would cut its
end, where the error stands."""

_RULE = "-" * 81


def failure_text(result: Result) -> str:
    """Return the text of NODE_FAILED: how a node failed and, as in dora 1.x, the end of stderr."""
    whole = "\n".join(excerpt(result.stderr)).encode(errors="replace")
    text = whole[-MAX_EVENT_SIZE:].decode(errors="ignore")
    if not text.strip():
        return result.reason
    return f"{result.reason} with stderr output:\n{_RULE}\n{text}\n{_RULE}\n"


def explained(stderr: Sequence[str]) -> tuple[str, ...]:
    """Return the lines of stderr that explain a failure, and a hint if its error is a known one."""
    lines = excerpt(stderr)
    if hidden := _hidden_module(stderr):
        return *lines, f"hint: {hidden}"
    for line in reversed(lines):
        for error, hint in HINTS:
            if match := re.match(error, line):
                return *lines, f"hint: {match.expand(hint)}"
    return lines


def _hidden_module(stderr: Sequence[str]) -> str | None:
    """Return a hint if a program of the user was imported in place of a module of Python.

    pyarrow needs many of them: it ends half imported, with an error about something else.
    """
    if not any("partially initialized module" in line for line in stderr):
        return None
    for line in stderr:
        match = re.match(r'  File "(.+/(\w+)\.py)", line', line)
        if match and match[2] in _MODULES and not _OF_PYTHON.search(match[1]):
            return f"{match[1]} hides the module `{match[2]}`: give that file another name"
    return None


_OF_PYTHON = re.compile(r"/(?:site|dist)-packages/|/lib/python3[^/]*/")
_MODULES = sys.stdlib_module_names | {"numpy", "pyarrow"}


def failure_report(results: Iterable[Result]) -> tuple[Block, ...]:
    """Return one block for each root cause, in the order of the failures; empty without any.

    One last block names the nodes that failed only because another node did. The order of failures
    during an aborted start is chance: that report is in the order of the nodes' names.
    """
    results = tuple(results)
    root_causes = {each.root_cause for each in results} - {None}
    if root_causes:
        results = tuple(sorted(results, key=lambda each: natural(each.node)))
    room = MAX_LINES_SIZE
    blocks = []
    for result in results:
        if not result.ok and result.outcome is not Outcome.CASCADING:
            lines = explained(result.stderr)
            room -= sum(map(len, lines))
            blocks.append(Block(f"node {result.node} {result.reason}", lines if room >= 0 else ()))
    blocks += [
        Block(
            f"node {result.node} {result.reason} before it called Node(), "
            "so the dataflow could not start",
            (*explained(result.stderr), *([NO_NODE] if result.node in root_causes else [])),
        )
        for result in results
        if result.ok and (result.node in root_causes or result.root_cause is not None)
    ]
    cascading = [each.node for each in results if each.outcome is Outcome.CASCADING]
    if cascading:
        nodes = "node" if len(cascading) == 1 else "nodes"
        names = ", ".join(cascading[:MAX_NAMES])
        more = ", ..." if len(cascading) > MAX_NAMES else ""
        blocks.append(
            Block(f"{len(cascading)} other {nodes} failed because of that: {names}{more}")
        )
    return tuple(blocks)
