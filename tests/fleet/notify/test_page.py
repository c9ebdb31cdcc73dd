"""The page on alerts names every key of the configuration and every field of the JSON."""

import re
from pathlib import Path

import pytest

from dorafleet.coordinator.settings import SettingsError, load
from dorafleet.notify.notification import FORMAT, Group, Notification
from dorafleet.notify.settings import PORTS

PAGE = (Path(__file__).parents[3] / "docs/alerts.md").read_text(encoding="utf-8")


def rows(title: str) -> set[str]:
    """Return the words in backticks of the first column of a table."""
    table = PAGE.split(title, 1)[1].split("\n\n", 1)[0]
    firsts = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    return {word for first in firsts for word in re.findall(r"`(\w+)`", first)}


@pytest.mark.parametrize(
    ("title", "kind"), [("| field | meaning |\n", Notification), ("| field of a group", Group)]
)
def test_every_field_of_the_json_is_explained(title, kind):
    assert rows(title) == set(kind.__struct_fields__)


def test_the_version_is_that_of_the_page():
    assert f"| `version` | {FORMAT} |" in PAGE


def test_the_configuration_of_the_page_is_valid(tmp_path):
    text = PAGE.split("```toml\n", 1)[1].split("```", 1)[0]
    (tmp_path / "dorafleet.toml").write_text(text)
    for name, content in (("webhook", "https://chat.example/x"), ("mail-password", "secret")):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o640)
    found = load(tmp_path / "dorafleet.toml").alerts
    assert found.webhook
    assert found.mail
    assert found.mail.port == PORTS["starttls"]


def test_every_key_of_the_configuration_is_explained(tmp_path):
    (tmp_path / "dorafleet.toml").write_text("[alerts]\nx = 1\n[alerts.mail]\nx = 1\n")
    with pytest.raises(SettingsError) as caught:
        load(tmp_path / "dorafleet.toml")
    known = re.findall(r"known here: ([\w, ]+)\)", str(caught.value))
    assert {frozenset(each.split(", ")) for each in known} == {
        frozenset(rows("| key of `[alerts]`") | {"mail"}),
        frozenset(rows("| key of `[alerts.mail]`")),
    }
