"""Dataflows drawn by Hypothesis that run live, and whose nodes log each input with its stamp.

What a node sends on `each_*` depends on the messages of one input alone, in their order: it does
not depend on how inputs interleave. `mixed` depends on that.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hypothesis import strategies as st

LONGEST_S = 0.6
MOST = 60
"""Messages of a source, so that no queue of QUEUE drops one."""
QUEUE = 10_000

SOURCE = """
    import os
    import time

    import pyarrow as pa
    from dora import Node

    node, every_s = Node(), 1 / float(os.environ["RATE"])
    begin = time.monotonic()
    for number in range(int(os.environ["COUNT"])):
        time.sleep(max(0.0, begin + number * every_s - time.monotonic()))
        node.send_output("out", pa.array([number]))
"""
NODE = """
    import os

    import pyarrow as pa
    from dora import Node

    kind, name = os.environ["KIND"], os.environ["NAME"]
    log = open(os.path.join(os.environ["LOGS"], name), "w", buffering=1)
    node, counts, state = Node(), {}, 7

    def note(event):
        stamp = int(event["metadata"]["timestamp"].timestamp() * 1e6)
        print(event["id"], stamp, *event["value"].to_pylist()[:2], file=log)

    def double(event):
        note(event)
        return pa.array([2 * event["value"][0].as_py()])

    if kind == "server":
        node.serve("ask", "answer", double)
        raise SystemExit
    open_inputs = set(os.environ["INPUTS"].split())
    for event in node:
        if event["type"] == "INPUT_CLOSED":
            open_inputs.discard(event["id"])
            if not open_inputs:
                break  # a timer has no end
        if event["type"] != "INPUT":
            continue
        note(event)
        source = event["id"]
        number = counts[source] = counts.get(source, 0) + 1
        value = event["value"][0].as_py() if len(event["value"]) else number
        if kind == "client":
            reply = node.call("ask", pa.array([value]), timeout=60)
            node.send_output("each_" + source, reply["value"])
            continue
        node.send_output("each_" + source, pa.array([value, number]))
        state = (state * 31 + 1000 * value + len(source) + ord(source[-1])) % 1_000_003
        if "mixed" in os.environ["OUTPUTS"]:
            node.send_output("mixed", pa.array([state]))
"""


class LiveFlow(NamedTuple):
    """A dataflow, and what is known of it."""

    descriptor: Mapping[str, Any]
    sources: list[str]
    live: list[str]
    """The nodes that run in a replay."""
    fixed: list[str]
    """Topics whose messages do not depend on how inputs interleave, nor on timers."""


@st.composite
def live_flows(draw: st.DrawFn) -> LiveFlow:
    """Draw two or three sources at 0.5 to 200 Hz, relays, a node with a timer, and a service."""
    nodes: list[dict[str, Any]] = []
    sources = [f"s{at}" for at in range(draw(st.integers(2, 3)))]
    for name in sources:
        rate = draw(st.sampled_from((0.5, 3.0, 30.0, 100.0, 200.0)))
        count = max(1, min(MOST, int(rate * LONGEST_S)))
        env = {"RATE": str(rate), "COUNT": str(count)}
        nodes.append({"id": name, "path": "source.py", "env": env, "outputs": ["out"]})
    fixed: list[str] = []
    outputs = [f"{name}/out" for name in sources]
    live: list[str] = []
    kinds = ["relay", draw(st.sampled_from(("relay", "timer"))), "client"]
    for at, kind in enumerate(draw(st.permutations(kinds))):
        name = f"n{at}"
        count = 1 if kind == "client" else draw(st.integers(1, 3))
        chosen = draw(st.lists(st.sampled_from(outputs), min_size=count, max_size=count))
        taken = {f"i{n}": source for n, source in enumerate(chosen)}
        sent = [f"each_{each}" for each in taken]
        inputs = {n: {"source": source, "queue_size": QUEUE} for n, source in taken.items()}
        env = {"KIND": kind, "NAME": name, "INPUTS": " ".join(taken)}
        if kind == "timer":
            period = draw(st.integers(20, 90))
            inputs["tick"] = {"source": f"dora/timer/millis/{period}", "queue_size": QUEUE}
            sent.append("each_tick")
        if kind == "client":
            inputs["answer"] = {"source": f"{name}-server/answer", "queue_size": QUEUE}
            serving = {**env, "KIND": "server", "NAME": f"{name}-server"}
            asked = {"ask": {"source": f"{name}/ask", "queue_size": QUEUE}}
            nodes.append(_node(f"{name}-server", serving, asked, ["answer"]))
            live.append(f"{name}-server")
        else:
            sent.append("mixed")
        more = ["ask"] if kind == "client" else []
        nodes.append(_node(name, env, inputs, [*sent, *more]))
        live.append(name)
        if all(source in fixed or source.startswith("s") for source in chosen):
            fixed += [f"{name}/{each}" for each in sent if each not in ("mixed", "each_tick")]
        outputs += [f"{name}/{each}" for each in sent if each != "each_tick"]
    return LiveFlow({"nodes": nodes}, sources, live, fixed)


def _node(
    name: str, env: dict[str, str], inputs: dict[str, Any], outputs: list[str]
) -> dict[str, Any]:
    return {
        "id": name,
        "path": "node.py",
        "env": {**env, "OUTPUTS": " ".join(outputs)},
        "inputs": inputs,
        "outputs": outputs,
    }


def prepare(folder: Path, flow: LiveFlow) -> None:
    """Write a dataflow and its programs into a folder."""
    folder.mkdir()
    (folder / "source.py").write_text(textwrap.dedent(SOURCE))
    (folder / "node.py").write_text(textwrap.dedent(NODE))
    (folder / "dataflow.yml").write_text(yaml.safe_dump(dict(flow.descriptor), sort_keys=False))


def logs(folder: Path) -> dict[str, list[tuple[str, int, str]]]:
    """Return what each node has received: input, stamp in µs, and values."""
    received = {}
    for path in sorted(folder.iterdir()):
        lines = (line.split(" ", 2) for line in path.read_text().splitlines())
        received[path.name] = [(each, int(stamp), "".join(rest)) for each, stamp, *rest in lines]
    return received
