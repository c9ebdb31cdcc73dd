"""A dataflow as Mermaid: shapes, arrows, and text that cannot break out."""

from pathlib import Path

from dorad.dataflow.draw import mermaid
from dorad.dataflow.load import parse

FLOW = """\
nodes:
  - id: camera
    path: camera.py
    inputs: {tick: dora/timer/hz/30}
    outputs: [image, info]
    output_types: {info: "std/core/v1/String"}
  - id: detector
    path: dynamic
    inputs:
      frame: {source: camera/image, queue_size: 1, queue_policy: backpressure}
      info: camera/info
      slow: dora/timer/secs/2
"""


def draw(text):
    return mermaid(parse(text, path=Path("flow.yml"), environ={})).splitlines()


def test_it_is_a_flowchart_from_top_to_bottom():
    assert draw(FLOW)[0] == "flowchart TB"


def test_timers_nodes_and_dynamic_nodes_have_different_shapes():
    assert draw(FLOW)[1:5] == [
        '  n0(["30 Hz"])',
        '  n1(["every 2 s"])',
        '  n2["camera"]',
        '  n3[/"detector"\\]',
    ]


def test_an_arrow_is_labelled_with_output_and_input_where_they_differ_and_with_the_type():
    lines = draw(FLOW)
    assert '  n2 ==>|"image → frame"| n3' in lines
    assert '  n2 -->|"info #91;String#93;"| n3' in lines


def test_the_usual_timer_input_needs_no_label():
    lines = draw(FLOW)
    assert "  n0 --> n2" in lines
    assert '  n1 -->|"slow"| n3' in lines


def test_an_id_cannot_be_mistaken_for_a_keyword():
    assert draw("nodes:\n  - id: end\n    path: dynamic\n")[1] == '  n0[/"end"\\]'


def test_an_empty_dataflow_is_a_valid_chart():
    assert draw("nodes: []\n")[0] == "flowchart TB"


def test_modules_are_subgraphs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("inner.yml").write_text("module: {name: i}\nnodes: [{id: a, path: a}, {id: b, path: b}]")
    Path("outer.yml").write_text("module: {name: o}\nnodes: [{id: in, module: inner.yml}]")
    lines = draw(
        "nodes: [{id: one, path: x}, {id: out, module: outer.yml}, {id: in, module: inner.yml}]"
    )
    assert lines[1:14] == [
        '  n0["one"]',
        '  subgraph m0["out"]',
        '    subgraph m1["out.in"]',
        '      n1["out.in.a"]',
        '      n2["out.in.b"]',
        "    end",
        "  end",
        '  subgraph m2["in"]',
        '    n3["in.a"]',
        '    n4["in.b"]',
        "  end",
        "  classDef timer stroke:#b7791f",
        "  classDef dynamic stroke-dasharray:5 4",
    ]
