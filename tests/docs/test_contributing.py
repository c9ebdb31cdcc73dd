"""The page for contributors: its drawing is that of the contracts, and what it names exists."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from functools import cache
from typing import NamedTuple

import pytest

from .markdown import ROOT

PAGE = ROOT / "docs/contributing.md"
SCRIPT = ROOT / "packaging/house.py"
DRAWING = ROOT / "docs/house.svg"
SVG = "{http://www.w3.org/2000/svg}"
_PATH = re.compile(
    r"`((?:dorad|dorafleet|docs|packaging|tests|units|hwtests)/[\w./-]*)(?:: ?[^`]*)?`"
)
_NAMED = re.compile(r"`((?:dorad|dorafleet)/[\w/]+\.py): ?([^`]+)`")


def test_the_drawing_is_the_one_that_the_contracts_make() -> None:
    command = [sys.executable, str(SCRIPT), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


class Rect(NamedTuple):
    """A rectangle of the drawing."""

    left: float
    top: float
    right: float
    bottom: float

    def has(self, other: Rect) -> bool:
        """Return True if the other one is inside."""
        return (
            self.left <= other.left
            and self.top <= other.top
            and other.right <= self.right
            and other.bottom <= self.bottom
        )

    def meets(self, other: Rect) -> bool:
        """Return True if both have an area in common."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def rects_and_texts() -> tuple[list[Rect], list[Rect]]:
    """Return the rectangles and the texts of the drawing; letters as wide as fonts have them."""
    root = ET.parse(DRAWING).getroot()  # it is our own file

    def number(element: ET.Element, name: str) -> float:
        return float(element.get(name, "0"))

    rects = []
    for each in root.iter(f"{SVG}rect"):
        x, y = number(each, "x"), number(each, "y")
        rects.append(Rect(x, y, x + number(each, "width"), y + number(each, "height")))
    texts = []
    for each in root.iter(f"{SVG}text"):
        x, y, size = number(each, "x"), number(each, "y"), number(each, "font-size")
        texts.append(
            Rect(x, y - size * 0.8, x + len(each.text or "") * size * 0.602, y + 0.2 * size)
        )
    return rects, texts


def test_nothing_in_the_drawing_overlaps_or_leaves_its_box() -> None:
    rects, texts = rects_and_texts()
    assert len(texts) > 60
    for i, one in enumerate(rects):
        for other in rects[:i]:
            assert not one.meets(other) or one.has(other) or other.has(one), (one, other)
    for i, text in enumerate(texts):
        assert not [other for other in texts[:i] if other.meets(text)], text
        for rect in rects:
            assert not rect.meets(text) or rect.has(text), (text, rect)


def test_the_drawing_has_every_package_of_the_contracts() -> None:
    import tomllib

    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    drawn = {each.text for each in ET.parse(DRAWING).getroot().iter(f"{SVG}text")}
    for contract in contracts["contracts"]:
        for layer in contract.get("layers", ()):
            for module in re.split(r"[|:]", layer):
                assert module.strip(" ()").rpartition(".")[2] in drawn, module


@cache
def defined(file: str) -> frozenset[str]:
    """Return the names that a module defines: of itself, and of its classes as `Class.name`."""
    names: set[str] = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    names.add(prefix + node.name)
                case ast.ClassDef():
                    names.add(prefix + node.name)
                    collect(node.body, f"{prefix}{node.name}.")
                case ast.Assign():
                    names.update(
                        prefix + each.id for each in node.targets if isinstance(each, ast.Name)
                    )
                case ast.AnnAssign(target=ast.Name(id=name)):
                    names.add(prefix + name)
                case ast.If():
                    collect([*node.body, *node.orelse], prefix)

    collect(ast.parse((ROOT / file).read_text(encoding="utf-8")).body, "")
    return frozenset(names)


def test_every_path_on_the_page_exists() -> None:
    paths = {match[1] for match in _PATH.finditer(PAGE.read_text(encoding="utf-8"))}
    assert len(paths) > 40
    assert [each for each in sorted(paths) if not (ROOT / each).exists()] == []


def test_every_function_on_the_page_is_defined_in_its_module() -> None:
    named = [
        (match[1], name.strip())
        for match in _NAMED.finditer(PAGE.read_text(encoding="utf-8"))
        for name in match[2].split(",")
    ]
    assert len(named) > 30
    wrong = [
        f"{file}: {name}"
        for file, name in named
        if (ROOT / file).exists() and name not in defined(file)
    ]
    assert wrong == []


@pytest.mark.parametrize("life", ["a message", "a start", "an order"])
def test_the_steps_of_a_life_each_name_where_they_happen(life: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    [section] = re.findall(rf"^## The life of {life}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    steps = re.findall(r"^\d+\. (.*?)(?=^\d+\. |^\n|\Z)", section, re.M | re.S)
    assert steps
    assert [step for step in steps if not _NAMED.search(step)] == []
