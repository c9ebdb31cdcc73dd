"""The page about a fleet in trouble: its tests exist, and its index names every entry."""

import re
from pathlib import Path

import click

from dorad.commandline.groups import LazyGroup
from dorafleet.cli.main import cli

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/recovery.md").read_text(encoding="utf-8")


def test_every_entry_names_tests_that_exist() -> None:
    sources = [
        path.read_text(encoding="utf-8")
        for folder in ("tests", "hwtests")
        for path in (ROOT / folder).rglob("test_*.py")
    ]
    defined = {name for text in sources for name in re.findall(r"def (test_\w+)\(", text)}
    _, *entries = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    assert len(entries) == 9
    for entry in entries:
        named = re.findall(r"`(test_\w+)`", entry[entry.index("\nTests: ") :])
        assert named, entry
        assert set(named) <= defined, set(named) - defined
    for path in re.findall(r"`(hwtests/[\w/]+\.py)`", PAGE):
        assert (ROOT / path).is_file(), path


def test_every_entry_is_in_the_index() -> None:
    titles = re.findall(r"^## (.*)$", PAGE, flags=re.MULTILINE)
    slugs = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
    assert sorted(re.findall(r"\]\(#([\w-]+)\) \|$", PAGE, flags=re.MULTILINE)) == sorted(slugs)


def test_every_command_on_the_page_exists() -> None:
    context = click.Context(cli)
    assert isinstance(cli, LazyGroup)
    known = set(cli.list_commands(context))
    named = set(re.findall(r"(?:\$ |`)dorafleet ([a-z]+)", PAGE))
    assert len(named) > 8
    assert named <= known, named - known
