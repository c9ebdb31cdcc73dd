"""A trace as text."""

import re
from pathlib import Path

import pytest

from dorad.control import messages as m
from dorad.trace.build import as_trace
from dorad.trace.store import TraceStore
from dorad.trace.waterfall import waterfall
from tests.trace.recorded import Recorded, chain, fed, joined, run_chain

ROOT = Path(__file__).parents[2]


def chain_trace() -> m.Trace:
    nodes = chain()
    run_chain(nodes, 0)
    (tree,) = joined(*nodes)
    return as_trace(tree, "flow")


def test_rows_show_where_the_time_went():
    trace = chain_trace()
    lines = waterfall(trace, 79)
    assert lines[0] == f"camera/tick → camera → detector → planner   22.0 ms   trace {trace.id[:8]}"
    assert [line.split()[:2] for line in lines[2:]] == [
        ["└tick", "late"],
        ["camera", "process"],
        ["└image", "transport"],
        ["detector", "process"],
        ["└boxes", "transport"],
        ["planner", "process"],
    ]
    assert "10.5" in lines[5] and "◀ 3 more queued" in lines[4]
    assert max(map(len, lines)) <= 79
    # Each message is sent before its receiver begins, and the last bar ends with the chart.
    bars = [re.search("[·░█▌]+", line) for line in lines[2:]]
    begins = [bar.start() for bar in bars if bar is not None]
    assert len(begins) == 6
    assert begins == sorted(begins)


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_it_fits_the_terminal_without_utf_8_too(width):
    lines = waterfall(chain_trace(), width, unicode=False)
    assert all(line.isascii() for line in lines)
    assert max(map(len, lines[1:])) <= max(width, 60)


def test_drops_failures_and_what_is_unknown_are_told():
    spans = [
        m.Span(topic="a/out", node="b", input="in", sent=0.0, done=0.5, outcome="dropped"),
        m.Span(topic="a/out", node="c", input="in", sent=0.0, received=0.1, outcome="failed"),
        m.Span(topic="a/out", node="d\x1b[2J", input="in", sent=0.0, received=0.2, done=0.9),
        m.Span(topic="d/out", node="", input="", sent=0.8, parent=2),
    ]
    trace = m.Trace(
        id="ab" * 16, dataflow="flow", start=0.0, duration=0.9, path="a/out → d", span_count=9,
        cut=True, left_out=5, spans=spans,
    )  # fmt: skip
    text = "\n".join(waterfall(trace, 100))
    assert "✗ a/out dropped at b/in" in text
    assert "✗ c failed while it worked on a/out" in text
    assert "d/out: no node has received it yet" in text
    assert "beginning is unknown" in text
    assert "5 more spans" in text
    assert "\x1b" not in text


def test_the_figures_of_its_path_are_in_the_title():
    nodes = chain()
    for at in range(0, 1000, 100):
        run_chain(nodes, at)
    store = TraceStore()
    trees = joined(*nodes)
    for tree in trees:
        store.add("flow", tree)
    (path,) = store.paths("flow")
    lines = waterfall(as_trace(trees[0], "flow"), 100, path=path)
    assert "(path p50 22.0, p99 22.0 ms)" in lines[0]


def test_the_picture_of_the_guide_is_one_of_these():
    nodes = chain()
    run_chain(nodes, 0)
    logger = Recorded("logger", fed(image="camera/image"))
    logger.drop("image", 9, 1)
    (tree,) = joined(*nodes, logger)
    lines = waterfall(as_trace(tree, "flow"), 90)
    text = (ROOT / "docs" / "guide" / "tracing.md").read_text(encoding="utf-8")
    assert "\n".join(lines) in text, "\n".join(lines)


def test_each_part_is_coloured_by_what_it_is():
    trace = chain_trace()
    trace.spans[1].wait = 0.0019
    lines = waterfall(trace, 90, style=lambda kind, text: f"<{kind}>{text.strip()}</>")
    text = "\n".join(lines)
    assert lines[0].startswith("<head>camera/tick")
    assert "<wait>░░░" in text
    assert "<transport>·" in text
    assert "<process>█" in text
    # The figures stay where they are.
    assert all(
        line.endswith(number) for line, number in zip(lines[5:], ("10.5", "1.0"), strict=False)
    )
