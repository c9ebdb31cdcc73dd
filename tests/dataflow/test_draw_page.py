"""A dataflow as an HTML page: complete, self-contained, and safe with any text."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dorad.dataflow.html import page
from dorad.dataflow.load import parse
from dorad.dataflow.picture import counts, interval, summary

FLOW = """\
nodes:
  - id: camera
    path: nodes/camera.py
    inputs: {tick: dora/timer/millis/33}
    outputs: [image]
  - id: detector
    path: dynamic
    inputs:
      frame: {source: camera/image, queue_size: 1, queue_policy: backpressure}
    outputs: [boxes]
  - id: filter
    path: filter
    inputs: {boxes: detector/boxes, again: filter/out}
    outputs: [out]
"""


def flow(text=FLOW):
    return parse(text, path=Path("flows/robot.yml"), environ={})


class Elements(HTMLParser):
    """Collects (tag, attributes), and which tags were left open."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.open = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "input"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def of_class(self, name):
        return [a for _, a in self.found if name in a.get("class", "").split()]


def test_every_node_and_timer_is_a_box_of_its_kind():
    boxes = Elements(page(flow())).of_class("box")
    assert {box["data-box"]: box["class"] for box in boxes} == {
        "dora/timer/millis/33": "box timer",
        "camera": "box node",
        "detector": "box dynamic",
        "filter": "box node",
    }


def test_every_connection_is_an_edge_with_its_ends():
    edges = Elements(page(flow())).of_class("edge")
    assert {(edge["data-source"], edge["data-target"]) for edge in edges} == {
        ("dora/timer/millis/33", "camera"),
        ("camera", "detector"),
        ("detector", "filter"),
        ("filter", "filter"),
    }


def test_labels_name_output_and_input_and_tooltips_the_queue():
    text = page(flow())
    assert "image → frame" in text
    assert "camera/image → detector/frame\nqueue 1 · backpressure" in text


def test_inputs_from_one_node_share_an_edge_with_a_line_each():
    text = (
        "nodes:\n  - {id: a, path: dynamic, outputs: [x, y]}\n"
        "  - {id: b, path: dynamic, inputs: {x: a/x, y: a/y}}\n"
    )
    found = Elements(page(flow(text)))
    assert len(found.of_class("edge")) == 1
    assert len([tag for tag, _ in found.found if tag == "text"]) == 6


def test_elements_are_closed_in_order():
    assert Elements(page(flow())).open == []


def test_it_loads_nothing_from_anywhere():
    text = page(flow())
    links = [
        attrs.get(name)
        for _, attrs in Elements(text).found
        for name in ("src", "href", "xlink:href", "action")
    ]
    assert not any(links)
    assert "@import" not in text
    assert set(re.findall(r"url\((.*?)\)", text)) <= {
        "#tip",
        "#tip-timer",
        "#tip-back",
        "#tip-hot",
        "#tip-bad",
    }


def test_it_forbids_itself_the_network():
    policies = [a["content"] for _, a in Elements(page(flow())).found if "http-equiv" in a]
    assert [policy.split(";")[0] for policy in policies] == ["default-src 'none'"]


def test_it_has_a_dark_and_a_light_look():
    assert "prefers-color-scheme: dark" in page(flow())


@pytest.mark.parametrize("field", ["name", "description", "path"])
def test_text_from_the_file_stays_text(field):
    text = FLOW.replace(
        "    path: dynamic\n",
        f"    {field}: '<script>alert(1)</script>\"$ink'\n"
        + ("    path: dynamic\n" if field != "path" else ""),
    )
    found = Elements(page(flow(text)))
    assert [tag for tag, _ in found.found].count("script") == 1
    assert "alert(1)" in page(flow(text))


def test_a_file_name_with_markup_stays_text():
    dataflow = parse(FLOW, path=Path("<b>&.yml"), environ={})
    assert '<h1 id="name">&lt;b&gt;&amp;.yml</h1>' in page(dataflow)


def test_an_empty_dataflow_has_a_page():
    assert Elements(page(flow("nodes: []\n"))).open == []


def test_a_dataflow_is_summed_up():
    assert counts(flow()) == {"nodes": 3, "edges": 3, "timers": 1}
    assert summary(flow()) == "3 nodes, 3 edges, 1 timer"


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (2 * 10**9, "every 2 s"),
        (33_000_000, "every 33 ms"),
        (33_333_333, "every 33.33 ms"),
        (250_000, "every 250 µs"),
        (999, "every 999 ns"),
    ],
)
def test_intervals_read_as_a_person_would_say_them(nanoseconds, text):
    assert interval(nanoseconds) == text


MODULE = """\
module: {name: chain, inputs: [i], outputs: [o]}
nodes:
- {id: a, path: a, inputs: {i: _mod/i}, outputs: [x]}
- {id: b, path: b, inputs: {i: a/x}, outputs: [o]}
"""
CHAIN = """\
nodes:
- {id: s, path: s, outputs: [o]}
- {id: m, module: chain.yml, inputs: {i: s/o}}
- {id: t, path: t, inputs: {i: m/o}}
"""


def test_a_module_whose_boxes_stand_together_has_a_frame(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("flows").mkdir()
    Path("flows/chain.yml").write_text(MODULE)
    elements = Elements(page(flow(CHAIN)))
    assert len(elements.of_class("frame")) == 1
    assert "m: chain (flows/chain.yml)" in page(flow(CHAIN))
    (svg,) = (attributes for tag, attributes in elements.found if tag == "svg")
    left, top, width, height = map(float, svg["viewbox"].split())
    (rect,) = (r for r in elements.found if r[0] == "rect" and r[1].get("rx") == "12")
    x, y, w, h = (float(rect[1][name]) for name in ("x", "y", "width", "height"))
    assert left <= x
    assert top <= y
    assert x + w <= left + width
    assert y + h <= top + height


def test_a_module_that_stands_around_others_has_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("flows").mkdir()
    Path("flows/ends.yml").write_text(
        "module: {name: e, inputs: [i], outputs: [o]}\nnodes:\n"
        "- {id: a, path: a, outputs: [o]}\n- {id: b, path: b, inputs: {i: _mod/i}}\n"
    )
    text = """\
nodes:
- {id: m, module: ends.yml, inputs: {i: t/o}}
- {id: t, path: t, inputs: {i: m/o}, outputs: [o]}
"""
    assert Elements(page(flow(text))).of_class("frame") == []


def test_an_edge_shows_the_type_of_its_output():
    typed = FLOW.replace(
        "    outputs: [image]\n",
        "    outputs: [image]\n    output_types: {image: 'std/media/v1/Image[encoding=rgb8]'}\n",
    ).replace("frame: {source: camera/image", "image: {source: camera/image")
    html = page(flow(typed))
    assert "image [Image]" in html
    assert "std/media/v1/Image[encoding=rgb8]" in html  # in the tooltip
    assert "[]<" not in page(flow())
