"""Screens as text. With GOLDEN=1 in the environment they are rewritten: look at them."""

import os
import re
from contextlib import suppress
from pathlib import Path

import pytest
from textual.binding import Binding

from dorafleet.console.app import ConsoleApp
from dorafleet.console.model.commands import ACTIONS
from dorafleet.console.options import ConsoleOptions
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.screens.help import KEYS
from dorafleet.console.screens.top import TopScreen
from dorafleet.console.screens.topic import TopicScreen
from hwtests.console.pictures import SHOTS, fleet, ready

from .driving import console

GOLDEN = Path(__file__).parent / "golden"
GUIDE = Path(__file__).parents[2] / "docs/console.md"
ASCII = ConsoleOptions(ascii_only=True, theme="mono")

CASES = [
    ("fleet", (80, 24), ConsoleOptions()),
    ("fleet", (100, 30), ConsoleOptions()),
    ("fleet", (160, 45), ConsoleOptions(theme="safe")),
    ("fleet", (80, 24), ASCII),
    ("robot", (80, 24), ConsoleOptions()),
    ("robot", (100, 30), ConsoleOptions()),
    ("graph", (100, 30), ConsoleOptions()),
    ("graph", (160, 45), ConsoleOptions()),
    ("graph", (100, 30), ASCII),
    ("logs", (80, 24), ConsoleOptions()),
    ("confirm", (100, 30), ConsoleOptions()),
    ("confirm", (100, 30), ASCII),
    ("fleet", (160, 45), ASCII),
    ("help", (100, 30), ConsoleOptions()),
    ("params", (80, 24), ConsoleOptions()),
    ("plan", (80, 24), ConsoleOptions()),
]


def steady(text: str) -> str:
    """Return a screen without what differs from run to run, in places of the same width."""
    text = re.sub(r"link [<>]\d+m?s *", lambda found: "link".ljust(len(found[0])), text)
    lines = text.splitlines()
    lines[0] = re.sub(r" +\d\d:\d\d$", "", lines[0])
    lines[0] = re.sub(r" {2,}", "  ", lines[0])
    found = [re.sub(r"\d\d:\d\d:\d\d\.\d{3}", "hh:mm:ss.mmm", line) for line in lines]
    found = [re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "yyyy-mm-dd hh:mm", line) for line in found]
    return "\n".join(line.rstrip() for line in found) + "\n"


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine server and console, which share this process, answer late."""
    monkeypatch.setattr("dorafleet.console.link.server.STALE_S", 60.0)


@pytest.mark.parametrize(("name", "size", "options"), CASES)
async def test_a_screen_looks_as_its_golden_file(
    tmp_path: Path, name: str, size: tuple[int, int], options: ConsoleOptions
) -> None:
    start, keys, complete = SHOTS[name]
    kind = "-ascii" if options.ascii_only else ""
    path = GOLDEN / f"{name}-{size[0]}x{size[1]}{kind}.txt"
    given = ConsoleOptions(ascii_only=options.ascii_only, theme=options.theme, start=start)
    async with console(tmp_path, fleet(), size=size, options=given) as driven:
        await driven.until("60 robots")
        await ready(driven, keys, complete)
        if path.exists() and not os.environ.get("GOLDEN"):
            wanted = path.read_text(encoding="utf-8")
            with suppress(AssertionError):  # the comparison below shows what differs
                await driven.until(lambda: steady(driven.text) == wanted)
        text = steady(driven.text)
    if options.ascii_only:
        assert text.isascii()
    assert all(len(line) <= size[0] for line in text.splitlines())
    if os.environ.get("GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_the_guide_shows_these_screens() -> None:
    page = GUIDE.read_text(encoding="utf-8")
    shown = re.findall(r"<!-- screen (\S+) -->\n```text\n(.*?)```", page, re.DOTALL)
    golden = [(name, (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")) for name, _ in shown]
    if os.environ.get("GOLDEN"):
        for name, text in golden:
            page = re.sub(
                rf"(<!-- screen {name} -->\n```text\n).*?(```)",
                lambda found, text=text: found[1] + text + found[2],
                page,
                flags=re.DOTALL,
            )
        GUIDE.write_text(page, encoding="utf-8")
    else:
        assert shown == golden
    assert len(shown) == 5


def _keys() -> str:
    """Return the tables of keys and actions as the guide has them."""
    lines = ["| key | does |", "|---|---|"]
    for key, does in KEYS:
        cell = " ".join(f"`{word.replace('|', chr(92) + '|')}`" for word in key.split())
        lines.append(f"| {cell.replace('`or`', 'or')} | {does} |")
    lines += ["", "| `a`, then | does | role |", "|---|---|---|"]
    lines += [f"| `{each.key}` | {each.title} | {each.role} |" for each in ACTIONS]
    return "\n".join(lines) + "\n"


def test_the_guide_has_the_keys_and_actions_of_the_program() -> None:
    page = GUIDE.read_text(encoding="utf-8")
    begin, end = "<!-- keys -->\n", "<!-- end of keys -->\n"
    before, _, rest = page.partition(begin)
    shown, _, after = rest.partition(end)
    if os.environ.get("GOLDEN"):
        GUIDE.write_text(f"{before}{begin}{_keys()}{end}{after}", encoding="utf-8")
    else:
        assert shown == _keys()


def test_the_page_of_keys_names_every_key_that_does_something() -> None:
    shown = {word for keys, does in KEYS for word in f"{keys} {does}".replace(",", " ").split()}
    names = {
        "slash": "/",
        "colon": ":",
        "vertical_line": "|",
        "question_mark": "?",
        "minus": "-",
        "up": "arrows",
        "down": "arrows",
        "escape": "esc",
        "pageup": "PgUp",
        "pagedown": "PgDn",
        "home": "Home",
        "end": "End",
    }
    for kind in (ConsoleApp, ConsoleScreen, TopScreen, TopicScreen):
        for binding in Binding.make_bindings(kind.BINDINGS):
            assert names.get(binding.key, binding.key) in shown, binding
