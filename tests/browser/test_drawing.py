"""The page of a dataflow in a real browser: it shows everything, and is used with keys."""

import json
from pathlib import Path

import pytest

from dorad.dataflow.html import page as page_of
from dorad.dataflow.load import parse
from tests.browser.drawings import SMALL, layered
from tests.harness.browser import Page

TEXT = """
    [...document.querySelectorAll('.box')].map(box => [box.dataset.box, box.getAttribute('class')])
"""


def opened(page: Page, folder: Path, text: str, name: str = "robot.yml") -> None:
    """Open the page of a dataflow as a file."""
    file = folder / "graph.html"
    file.write_text(page_of(parse(text, path=Path(name), environ={})), encoding="utf-8")
    page.goto(file.as_uri())
    page.until("document.querySelector('.box') !== null")


def test_every_node_and_timer_is_a_box_and_every_connection_an_edge(
    page: Page, tmp_path: Path
) -> None:
    opened(page, tmp_path, SMALL)
    assert dict(page.run(TEXT)) == {
        "dora/timer/nanos/33333333": "box timer",
        "camera": "box node",
        "detector": "box node",
        "planner": "box node",
        "arm": "box dynamic",
        "logger": "box node",
    }
    ends = page.run(
        "[...document.querySelectorAll('.edge')].map(e => [e.dataset.source, e.dataset.target])"
    )
    assert sorted(map(tuple, ends)) == [
        ("arm", "planner"), ("camera", "detector"), ("camera", "logger"), ("detector", "planner"),
        ("dora/timer/nanos/33333333", "camera"), ("planner", "arm"), ("planner", "logger"),
    ]  # fmt: skip
    assert "feedback" in page.text("#legend")
    assert "‖ image" in page.text("#graph")
    assert page.requests[-1].startswith("file://")
    assert len([each for each in page.requests if not each.startswith(("file://", "about:"))]) == 0


@pytest.mark.parametrize("field", ["name", "description"])
def test_text_from_the_file_stays_text(page: Page, tmp_path: Path, field: str) -> None:
    hostile = "</script><script>document.title='taken'</script><!--<script>"
    text = f"nodes:\n- {{id: a, path: p, {field}: {json.dumps(hostile)}}}\n"
    opened(page, tmp_path, text, "<b>&.yml")
    assert page.run("document.title") == "<b>&.yml"
    assert hostile in page.text(".box title")


def test_names_of_members_of_objects_are_names_of_nodes(page: Page, tmp_path: Path) -> None:
    names = ["constructor", "__proto__", "toString", "hasOwnProperty"]
    nodes = [
        f"- {{id: {name}, path: p, outputs: [o], inputs: {{i: {before}/o}}}}"
        for name, before in zip(names, names[-1:] + names, strict=False)
    ]
    opened(page, tmp_path, "nodes:\n" + "\n".join(nodes))
    assert sorted(key for key, _ in page.run(TEXT)) == sorted(names)


def test_keys_move_between_boxes_and_search_finds_them(page: Page, tmp_path: Path) -> None:
    opened(page, tmp_path, SMALL)
    page.run("document.querySelector('[data-box=camera]').focus()")
    page.key("ArrowDown")
    assert page.run("document.activeElement.dataset.box") in ("detector", "logger")
    page.key("Enter")
    assert page.run("chosen.dataset.box") == page.run("document.activeElement.dataset.box")
    page.key("Escape")
    assert page.run("chosen") is None
    page.key("/")
    for letter in "plan":
        page.key(letter)
    assert page.text("#matches") == "1 found"
    assert page.run("document.querySelector('.match').dataset.box") == "planner"
    scale = page.run("view.scale")
    page.key("Enter")
    assert page.text("#matches") == "1 of 1"
    page.key("Escape")
    page.key("+")
    assert page.run("view.scale") > scale
    page.key("0")
    assert page.run("view.scale") == scale


def test_200_nodes_are_shown_whole_and_one_that_is_searched_large(
    page: Page, tmp_path: Path
) -> None:
    opened(page, tmp_path, layered(200))
    assert page.run("boxes.size") == 203
    inside = """
        [...document.querySelectorAll('.box')].every(box => {
          const inner = box.getBoundingClientRect(), outer = svg.getBoundingClientRect();
          return inner.left >= outer.left && inner.right <= outer.right &&
            inner.top >= outer.top && inner.bottom <= outer.bottom; })
    """
    assert page.run(inside)
    page.key("/")
    for letter in "n42":
        page.key(letter)
    page.key("Enter")
    title = page.run(
        "document.querySelector('[data-box=n42] .title').getBoundingClientRect().toJSON()"
    )
    assert title["height"] >= 10
    assert 0 <= title["left"] <= 1280
