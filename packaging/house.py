"""Draw the packages from the import contracts in pyproject.toml: `house.py [--check]`.

Each contract of layers is a panel, its highest layer on top. Writes docs/house.svg; with `--check`
nothing is written, and exit code 1 means that the drawing is out of date.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs/house.svg"

LETTER = 0.62
"""The width of a letter in font sizes: a little more than fonts of fixed width have."""
TITLE, NAME, NOTE = 17, 13, 11
MARGIN, GAP, PAD = 20, 20, 8
COLUMN, COLUMNS = 410, 3
BOX, LINE_GAP, LAYER_GAP = 24, 4, 5
LONGEST = 13
"""Letters of the longest name of a package; what it is for stands behind it."""
COLOURS = (("#fbf1e3", "#8a5a1b"), ("#e8f0fb", "#27548a"), ("#eaf5ea", "#2f6b35"))
"""Of the programs: the background of layers, and lines."""


class Panel(NamedTuple):
    """A contract of layers: the package that it is about, and its modules, highest layer first."""

    package: str
    layers: list[list[str]]

    @property
    def is_program(self) -> bool:
        """Whether it shows the packages of a program, each with what it is for."""
        return "." not in self.package


class Box(NamedTuple):
    """A module in a panel; `note` is what its package is for."""

    x: float
    y: float
    width: float
    name: str
    note: str


def panels(pyproject: str) -> list[Panel]:
    """Return the panels of all contracts of layers: those of programs first, then long ones."""
    settings = tomllib.loads(pyproject)["tool"]["importlinter"]
    drawn = [_panel(each) for each in settings["contracts"] if each["type"] == "layers"]
    programs = settings["root_packages"]

    def order(panel: Panel) -> tuple[bool, int, str]:
        # The program that imports the others is the last root package.
        rank = -programs.index(panel.package) if panel.is_program else -len(panel.layers)
        return not panel.is_program, rank, panel.package

    return sorted(drawn, key=order)


def _panel(contract: dict[str, Any]) -> Panel:
    rows = [
        [name.strip(" ()") for name in layer.replace(":", "|").split("|")]
        for layer in contract["layers"]
    ]
    if containers := contract.get("containers"):
        return Panel(containers[0], [[f"{containers[0]}.{each}" for each in row] for row in rows])
    packages = [name.rpartition(".")[0] for row in rows for name in row if "." in name]
    return Panel(min(packages, key=len), rows)


def purpose(name: str) -> str:
    """Return the first sentence of a package's docstring."""
    base = ROOT.joinpath(*name.split("."))
    file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".")


def arrange(panel: Panel, width: float) -> tuple[list[list[Box]], float]:
    """Return the boxes of each layer, from the panel's upper left corner, and its height."""
    right = width - 2 * PAD
    y: float = 2 * PAD + TITLE
    placed = []
    for layer in panel.layers:
        x: float = 2 * PAD
        y += LINE_GAP
        boxes: list[Box] = []
        for module in layer:
            name = module.removeprefix(f"{panel.package}.")
            wide = right - 2 * PAD if panel.is_program else _width(name, NAME) + 2 * PAD
            if boxes and x + wide > right:
                x, y = 2 * PAD, y + BOX + LINE_GAP
            boxes.append(Box(x, y, wide, name, purpose(module) if panel.is_program else ""))
            x += wide + LINE_GAP
        placed.append(boxes)
        y += BOX + LINE_GAP + LAYER_GAP
    return placed, y - LAYER_GAP + PAD


def _width(text: str, size: float) -> float:
    return len(text) * size * LETTER


def draw(pyproject: str) -> str:
    """Return the drawing of all contracts of layers."""
    programs = tomllib.loads(pyproject)["tool"]["importlinter"]["root_packages"][::-1]
    bottoms = [float(MARGIN)] * COLUMNS
    shapes: list[str] = []
    for panel in panels(pyproject):
        colours = COLOURS[programs.index(panel.package.partition(".")[0]) % len(COLOURS)]
        span = COLUMNS - 1 if panel.is_program else 1
        column = 0 if panel.is_program else bottoms.index(min(bottoms))
        width = span * COLUMN + (span - 1) * GAP
        left, top = MARGIN + column * (COLUMN + GAP), max(bottoms[column : column + span])
        shapes += _drawn(panel, left, top, width, colours)
        bottom = top + arrange(panel, width)[1] + GAP
        bottoms[column : column + span] = [bottom] * span
    across = 2 * MARGIN + COLUMNS * COLUMN + (COLUMNS - 1) * GAP
    size = f'width="{across}" height="{max(bottoms):g}"'
    fonts = "DejaVu Sans Mono, Consolas, monospace"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{fonts}">',
        "<title>The packages: each imports only from layers below its own</title>",
        f'<rect {size} fill="#ffffff"/>',
        *shapes,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _drawn(
    panel: Panel, left: float, top: float, width: float, colours: tuple[str, str]
) -> list[str]:
    fill, line = colours
    layers, height = arrange(panel, width)
    shapes = [
        _rect(left, top, width, height, "#ffffff", line),
        _text(left + PAD, top + PAD + TITLE, TITLE, panel.package, line, bold=True),
    ]
    for boxes in layers:
        at, tall = boxes[0].y - LINE_GAP, boxes[-1].y + BOX - boxes[0].y + 2 * LINE_GAP
        shapes.append(_rect(left + PAD, top + at, width - 2 * PAD, tall, fill))
        for box in boxes:
            x, y = left + box.x, top + box.y
            base = y + BOX / 2 + NAME * 0.35
            shapes.append(_rect(x, y, box.width, BOX, "#ffffff", line))
            shapes.append(_text(x + PAD, base, NAME, box.name, "#1b1b1b", bold=bool(box.note)))
            if box.note:
                start = PAD + _width("m" * LONGEST, NAME)
                most = int((box.width - start - PAD) / (NOTE * LETTER))
                note = box.note if len(box.note) <= most else box.note[: most - 1] + "…"
                shapes.append(_text(x + start, base, NOTE, note, "#444444"))
    return shapes


def _rect(x: float, y: float, width: float, height: float, fill: str, line: str = "none") -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" fill="{fill}" '
        f'stroke="{line}"/>'
    )


def _text(x: float, y: float, size: float, text: str, colour: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" fill="{colour}"{weight}>'
        f"{escape(text)}</text>"
    )


def main() -> None:
    """Write the drawing, or check it."""
    drawing = draw((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if sys.argv[1:] != ["--check"]:
        TARGET.write_text(drawing, encoding="utf-8")
    elif not TARGET.exists() or TARGET.read_text(encoding="utf-8") != drawing:
        sys.exit(f"{TARGET} does not match the contracts in pyproject.toml; run `make generate`")


if __name__ == "__main__":
    main()
