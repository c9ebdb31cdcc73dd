"""Random dataflows for `dora replay --step`, whose nodes log what they receive.

Each node does one of a few things; in Python, or in C as `stepnode.c`.
"""

import hashlib
import random
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from tests.libdora.conftest import PREFIX, SANITIZE, build_library, compile_command
from tests.record.files import Line, write

LENGTH_MS = 300
C_SHARE = 0.4
"""Part of the nodes that are in C."""

COMMON = """
    import os
    import pyarrow as pa

    def text_of(value):
        if isinstance(value, dict):
            return {name: text_of(each) for name, each in value.items()}
        return value.to_pylist() if len(value) < 50 else (len(value), str(value.sum()))

    def stamp_of(metadata):
        if "timestamp" in metadata:
            return metadata["timestamp"].isoformat()
        return {name: stamp_of(each) for name, each in metadata.items()}

    class Log:
        def __init__(self, name):
            self.file = open(os.path.join(os.environ["LOGS"], name), "a", buffering=1)
            self.state = 0

        def add(self, event):
            if event["type"] == "INPUT":
                value = text_of(event["value"])
                print(event["id"], stamp_of(event["metadata"]), value, file=self.file)
                digits = "".join(filter(str.isdigit, f"{event['id']}{value}")) or "7"
                self.state = (self.state * 31 + int(digits)) % 1_000_003
                return True
            if event["type"] != "STOP":
                print(event["type"], event.get("id"), event.get("error"), file=self.file)
            return False

        def output(self):
            return pa.array([self.state] * (3000 if self.state % 7 == 0 else 1))
"""
NODE = """
    import os
    import pyarrow as pa
    from dora import Node
    from dora.patterns import ExchangeError
    from common import Log

    kind, log = os.environ["KIND"], Log(os.environ["NAME"])
    timeout = float(os.environ["TIMEOUT"]) if "TIMEOUT" in os.environ else None
    node = Node()
    if kind == "first":
        node.send_output("out", log.output())
    if kind == "server":
        @node.serve("ask", "answer")
        def double(event):
            log.add(event)
            return pa.array([2 * event["value"][0].as_py() + log.state % 5])

        node.serve(others=log.add)
        raise SystemExit
    while (event := node.next(timeout)) is not None:
        received = log.add(event)
        if event["type"] == "STOP":
            break
        if not received:
            continue
        if kind == "client":
            try:
                log.add(node.call("ask", pa.array([log.state]), timeout=0.2))
            except ExchangeError as error:
                print(type(error).__name__, file=log.file)
        elif kind == "loop":
            left = event["value"][0].as_py() if event["id"] == "back" else 4
            if left > 0:
                node.send_output("out", pa.array([left - 1]))
        elif kind == "echo":
            node.send_output("out", event["value"])
        else:
            for _ in range(1 + log.state % 3):
                node.send_output("out", log.output())
"""
OPERATOR = """
    from dora import DoraStatus
    from common import Log

    class Operator:
        def __init__(self):
            self.log = Log(__name__)

        def on_event(self, event, send_output):
            if self.log.add(event):
                send_output("out", self.log.output())
            return DoraStatus.CONTINUE
"""


class Drawing:
    """A dataflow that is being drawn."""

    def __init__(self, chance: random.Random, languages: random.Random | None) -> None:
        """Draw with `chance`; `languages` chooses the nodes in C, without it there are none."""
        self.chance = chance
        self.languages = languages
        self.nodes: list[dict[str, Any]] = []
        self.outputs: list[str] = []

    def inputs(self, most: int = 3, *, timer: bool = True) -> dict[str, Any]:
        """Return inputs with random sources and options."""
        chance = self.chance
        count = chance.randint(1, most)
        inputs = {
            f"i{at}": {"source": chance.choice(self.outputs), **chance.choice(OPTIONS)}
            for at in range(count)
        }
        if timer and chance.random() < 0.3:
            inputs["tick"] = {"source": f"dora/timer/millis/{chance.randint(11, 70)}"}
        return inputs

    def add(self, name: str, kind: str, inputs: dict[str, Any], **more: Any) -> None:
        """Add a node that runs, with the output `out`."""
        env = {"KIND": kind, "NAME": name, **more.pop("env", {})}
        in_c = self.languages is not None and self.languages.random() < C_SHARE
        path = "./stepnode" if in_c else "node.py"
        node = {"id": name, "path": path, "env": env, "inputs": inputs, "outputs": ["out"]}
        self.nodes.append(node | more)
        self.outputs.append(f"{node['id']}/{more.get('outputs', ['out'])[0]}")


OPTIONS: tuple[dict[str, Any], ...] = (
    *({} for _ in range(5)),
    {"queue_size": 1},
    {"latched": True},
    {"max_rate_hz": 20},
    {"max_rate_hz": 25, "queue_policy": "backpressure", "queue_size": 100},
    {"queue_policy": "backpressure"},
)


def _relay(flow: Drawing, name: str) -> None:
    timeout = {"TIMEOUT": "0.037"} if flow.chance.random() < 0.25 else {}
    flow.add(name, flow.chance.choice(("relay", "relay", "first")), flow.inputs(), env=timeout)


def _sync(flow: Drawing, name: str) -> None:
    inputs = {f"i{at}": {"source": flow.chance.choice(flow.outputs)} for at in range(3)}
    group = {"name": "both", "inputs": ["i0", "i1"], "tolerance_ms": 30}
    flow.add(name, "relay", inputs, sync=group)


def _operators(flow: Drawing, name: str) -> None:
    body = {"python": "operator_a.py", "outputs": ["out"]}
    operators = [
        {"id": "a", **body, "inputs": flow.inputs()},
        {
            "id": "b",
            **body,
            "python": "operator_b.py",
            "inputs": {**flow.inputs(1), "inner": f"{name}/a/out"},
        },
    ]
    flow.nodes.append({"id": name, "operators": operators})
    flow.outputs += [f"{name}/a/out", f"{name}/b/out"]


def _loop(flow: Drawing, name: str) -> None:
    seed = {"source": flow.chance.choice(flow.outputs)}
    flow.add(name, "loop", {"seed": seed, "back": {"source": f"{name}-echo/out"}})
    flow.add(f"{name}-echo", "echo", {"there": {"source": f"{name}/out"}})


def _service(flow: Drawing, name: str) -> None:
    inputs = {**flow.inputs(1), "answer": {"source": f"{name}-server/answer"}}
    flow.add(name, "client", inputs, outputs=["ask"])
    ask = {"ask": {"source": f"{name}/ask"}, **flow.inputs(1, timer=False)}
    flow.add(f"{name}-server", "server", ask, outputs=["answer"])


KINDS: tuple[Callable[[Drawing, str], None], ...] = (
    *(_relay for _ in range(4)),
    _sync,
    _operators,
    _loop,
    _service,
)


def draw(seed: int, *, with_c: bool) -> tuple[dict[str, Any], list[Line]]:
    """Return a random dataflow, and the messages of its sources, which are replayed.

    One `with_c` is the same dataflow with some of its nodes in C.
    """
    chance = random.Random(seed)
    flow = Drawing(chance, random.Random(f"languages of {seed}") if with_c else None)
    lines: list[Line] = []
    for at in range(chance.randint(1, 2)):
        flow.nodes.append({"id": f"s{at}", "path": "none.py", "outputs": ["out"]})
        flow.outputs.append(f"s{at}/out")
        times = sorted(chance.randint(0, LENGTH_MS) for _ in range(chance.randint(2, 15)))
        lines += [
            (f"s{at}/out", ms, pa.array([chance.randint(0, 99)] * chance.choice((1, 1, 4000))), {})
            for ms in times
        ]
    has_operators = False
    for at in range(chance.randint(2, 4)):
        kind = chance.choice(KINDS)
        if kind is _operators and has_operators:
            kind = _relay  # one log for each file
        has_operators = has_operators or kind is _operators
        kind(flow, f"n{at}")
    flow.add("last", "relay", flow.inputs(4, timer=False))
    flow.nodes[-1]["inputs"]["direct"] = {"source": "s0/out"}
    sources = [node for node in flow.nodes if node["id"].startswith("s")]
    running = [node for node in flow.nodes if node not in sources]
    chance.shuffle(running)
    return {"nodes": [*running, *sources]}, sorted(lines, key=lambda line: line[1])


def compile_node(folder: Path) -> Path:
    """Compile the node in C with the library that this tree has; return the program."""
    build_library(PREFIX, *SANITIZE)
    program = folder / "stepnode"
    subprocess.run(compile_command(Path(__file__).with_name("stepnode.c"), program), check=True)
    return program


def prepare(folder: Path, seed: int, in_c: Path | None = None) -> str:
    """Write a random dataflow with its recording `a.mcap` into a folder; return its text.

    `in_c` is what `compile_node` has returned, and some nodes are that program then.
    """
    flow, lines = draw(seed, with_c=in_c is not None)
    programs = {"common": COMMON, "node": NODE, "operator_a": OPERATOR, "operator_b": OPERATOR}
    for name, program in programs.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(program))
    if in_c is not None:
        shutil.copy(in_c, folder / "stepnode")
    text = yaml.safe_dump(flow, sort_keys=False)
    write(folder / "a.mcap", lines, dataflow=text.encode())
    return text


def digest(folder: Path) -> str:
    """Return a digest of all logs in a folder."""
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        whole.update(f"{path.name}\n{path.read_text()}\n".encode())
    return whole.hexdigest()


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Keep processors busy while the block runs."""
    command = ["sh", "-c", "while :; do :; done"]
    processes = [subprocess.Popen(command) for _ in range(loops)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
