"""Text that others wrote, shown without doing anything to a terminal."""

import json
import sys
import unicodedata

import pytest

from dorad.terminal import visible, visible_json, visible_lines

HIDDEN = (
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b\u180e\u180f\u200b\u200c\u200d\u2060\u2064\u206a\u206f"
    "\u3164\ufe00\ufe0f\ufeff\uffa0\ufff9\ufffb\U0001d173\U000e0001\U000e0041\U000e007f\U000e0100\U000e01ef"
)
"""Zero-width characters, fillers, selectors of variants and tags: text may hide in them."""


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
        or chr(code) in HIDDEN
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


def test_characters_without_a_shape_are_shown_by_their_numbers() -> None:
    assert visible("a\u200bb\ufe0f\U000e0041") == r"a\u200bb\ufe0f\U000e0041"
    assert visible("\xad\x9b") == r"\xad\x9b"
    assert json.loads(visible_json('"\U000e0041"')) == "\U000e0041"
    assert visible_json('"\U000e0041"').isascii()


def test_a_node_cannot_show_a_picture_that_another_program_has_sent() -> None:
    assert visible("a\U0010eeee\u0305") == "a\\U0010eeee\u0305"


def test_every_character_of_format_without_a_width_is_among_them() -> None:
    shown = {  # Arabic and Kaithi signs that enclose a number
        chr(code)
        for code in (*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD)
    }
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)) == "Cf" and chr(code) not in shown:
            assert visible(chr(code)).isascii(), hex(code)


def test_marks_are_not_piled_up() -> None:
    assert visible("e\u0301\u0302") == "e\u0301\u0302"
    shown = visible("e" + 1000 * "\u0301")
    assert shown == "e" + 4 * "\u0301" + 996 * r"\u0301"


@pytest.mark.parametrize("text", ["", "plain", "Grüße", "温度\u3000高", "a\u00a0b", "\ue0b0"])
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert visible(text) == visible_lines(text) == visible_json(text) == text
