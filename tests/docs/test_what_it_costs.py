"""Every figure of `what-it-costs.md` and of the README is one of the page that it is from."""

import re
from collections.abc import Iterator

import pytest

from .markdown import ROOT, links

PAGE = ROOT / "docs/what-it-costs.md"
BENCH = ROOT / "docs/bench"
FIGURE = re.compile(r"(?<![\w.,])\d[\d.,]*\d?(?: ?%)?")


def rows() -> Iterator[tuple[str, str]]:
    """Yield the linked page and the figures of each row: its second and third cell."""
    page = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if named := re.search(r"\]\(([\w/-]+\.md)\)\.", line):
            page = named[1]
        elif line.startswith("|") and not line.startswith(("|--", "| what")):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            yield page, re.sub(r"dora 1\.1\.0|iceoryx2", "", " ".join(cells[1:]))


@pytest.mark.parametrize(("page", "figures"), list(rows()))
def test_the_figures_of_a_row_are_on_the_page_that_it_links_to(page: str, figures: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    given = [figure.strip(" ,.") for figure in FIGURE.findall(figures)]
    assert given
    missing = [
        each for each in given if not re.search(rf"(?<![\w.]){re.escape(each)}(?![\w.])", text)
    ]
    assert missing == []


def test_every_page_of_figures_is_linked() -> None:
    linked = {(PAGE.parent / link).resolve() for link in links(PAGE)}
    assert {str(path) for path in set(BENCH.glob("*.md")) - linked} == set()


def test_each_table_says_by_which_command_it_is_repeated() -> None:
    sections = PAGE.read_text(encoding="utf-8").split("| what | ours | beside it |")[:-1]
    for section in sections:
        before = section.rpartition("\n\n")[0].rpartition("\n\n")[2]
        assert re.match(r"`(make [\w-]+|python -m [\w. -]+)`", before), before


NAMES = {
    "round trip, {}": "round trip",
    "round trip, {}, in pure Python": "round trip, pure Python",
    "round trip, {} allocated in shared memory": "round trip, allocated in shm",
    "one-way, {}, 4 ms apart": "one-way, spaced",
    "messages a second, {}": "burst",
    "messages a second, {}, to four nodes": "fan-out 4, burst",
    "hello, start to exit": "hello",
}
"""Rows of the README, and what the page of results calls them; `{}` is the payload."""
UNITS = {"µs": 1e-6, "ms": 1e-3, "s": 1.0}
ROUNDED = 0.04
"""The README has two digits."""


def cells(text: str) -> Iterator[list[str]]:
    """Yield the rows of all tables."""
    for line in text.splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def number(cell: str) -> float:
    """Return a figure: a time in seconds, a factor, or what happens in a second."""
    found = re.match(r"([\d.,]+(?:e\+\d+)?) ?(µs|ms|s)?", cell)
    assert found is not None, cell
    return float(found[1].replace(",", "")) * UNITS.get(found[2] or "", 1.0)


def measured(page: str) -> dict[tuple[str, str], list[str]]:
    """Return the rows of a page of results by measure and payload."""
    text = (BENCH / page).read_text(encoding="utf-8")
    return {(row[0], row[1]): row[2:] for row in cells(text) if len(row) == 8}


def compared() -> list[list[str]]:
    """Return the rows of the table of the README; the last one is about ROS 2."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [row for row in cells(text) if len(row) == 5 and row[1].strip("-: ")][1:]


def test_every_figure_of_the_readme_is_one_of_the_results_rounded() -> None:
    results = measured("results-quiet.md")
    raw = {
        row[0]: row[3:]
        for row in cells((BENCH / "results-quiet.md").read_text(encoding="utf-8"))
        if row[1] == "iceoryx2 polling"
    }
    payloads = ["8 B", "4 KiB", "64 KiB", "1 MiB", "8 MiB"]
    shown = compared()[:-1]
    assert len(shown) == 10
    for label, ours, dora, factor, iceoryx in shown:
        payload = next((each for each in payloads if f" {each}" in label), "")
        measure = NAMES[label.replace(payload, "{}") if payload else label]
        row = results[measure, payload]
        beside = results["round trip", payload] if dora == "" else row
        assert number(ours) == pytest.approx(number(row[0]), rel=ROUNDED), label
        assert dora == "" or number(dora) == pytest.approx(number(row[2]), rel=ROUNDED), label
        ratio = number(beside[2]) / number(row[0])
        ratio = max(ratio, 1 / ratio)  # more in a second is better, too
        assert number(factor.split()[0]) == pytest.approx(ratio, rel=ROUNDED), label
        if iceoryx:
            polling = raw[measure][payloads.index(payload)]
            assert number(iceoryx) == pytest.approx(number(polling), rel=ROUNDED), label


def test_the_figures_below_the_table_of_the_readme_are_those_of_the_last_results() -> None:
    results = measured("results.md")
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    found = re.search(
        r"a round trip of 8 B takes (.*?) there, (\d+) times as fast as dora, one of a struct of "
        r"ten numbers (.*?), (\d+) times, and one between nodes in C (.*?)\.? ?\[",
        text,
    )
    assert found is not None
    plain, nested = results["round trip", "8 B"], results["round trip, nested", "80 B"]
    native = results["round trip, C and C", "8 B"]
    given = [number(each) for each in found.groups()]
    wanted = [plain[0], plain[4], nested[0], nested[4], native[0]]
    assert given == pytest.approx([number(each) for each in wanted], rel=ROUNDED)


def test_the_row_of_the_readme_about_ros2_has_the_figures_of_its_page() -> None:
    text = (BENCH / "ros2.md").read_text(encoding="utf-8")
    images = text.partition("\n## Images of 1 MB")[2].partition("\n## ")[0]
    cpu = {row[0].split(",")[0]: row[3] for row in cells(images)}
    label, ours, *_, rclpy = compared()[-1]
    assert "1 MB" in label
    assert number(ours) == pytest.approx(number(f"{cpu['the `ros2` block']} µs"), rel=ROUNDED)
    objects = cpu["a node with rclpy whose callback sends message objects on as Arrow"]
    assert rclpy.startswith("rclpy: ")
    assert number(rclpy[7:]) == pytest.approx(number(f"{objects} µs"), rel=ROUNDED)
