"""Text that others wrote, shown without doing anything to a terminal."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest

from dorad.terminal import visible, visible_json, visible_lines


@pytest.fixture(scope="module")
def harmful() -> list[str]:
    """All characters that may do something to a terminal."""
    return [
        chr(code)
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(chr(code)) in ("LRE", "RLE", "LRO", "RLO", "PDF")
        or unicodedata.bidirectional(chr(code)) in ("LRI", "RLI", "FSI", "PDI")
        or chr(code) in "\u061c\u200e\u200f"
    ]


def test_no_control_character_but_the_tab_is_kept(harmful: list[str]) -> None:
    shown = visible("".join(harmful))
    assert not set(shown).intersection(harmful) - {"\t"}
    assert shown.startswith(r"\x00\x01")
    assert len(harmful) > 2100


def test_newlines_are_kept_and_other_control_characters_escaped(harmful: list[str]) -> None:
    shown = visible_lines("".join(harmful))
    assert set(shown).intersection(harmful) == {"\t", "\n"}
    assert visible_lines("a\nb", "  ") == "a\n  b"


def test_json_keeps_its_value(harmful: list[str]) -> None:
    text = "x".join(harmful)  # apart, as two surrogates may spell one character
    value = {text: text}
    text = visible_json(json.dumps(value, ensure_ascii=False))
    assert not set(text).intersection(harmful)
    assert json.loads(text) == value


@pytest.mark.parametrize("text", ["", "plain", "Grüße", "温度\u3000高", "a\u00a0b", "\ue0b0"])
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert visible(text) == visible_lines(text) == visible_json(text) == text
