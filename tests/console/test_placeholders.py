"""Pictures in pixels: what is sent, in which cells they are, and how detailed they are."""

from __future__ import annotations

import io
import re
from base64 import b64decode
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.cells import cell_len

from dorad.control.pictures import Picture
from dorafleet.console.images import TerminalPicture
from dorafleet.console.model.detail import MAX_REST_S, REST_S, SLOW_S, Detail
from dorafleet.console.view.placeholders import (
    CHUNK,
    MARKS,
    PLACEHOLDER,
    cells,
    deletion,
    fitting,
    transmission,
)
from dorafleet.console.view.words import width

SEQUENCE = re.compile(r"\x1b_G([^;\x1b]*)(?:;([A-Za-z0-9+/=]*))?\x1b\\")


class Shown(NamedTuple):
    """A picture that the terminal keeps."""

    pixels: np.ndarray
    placed: tuple[int, int] | None


class Pictures:
    """The pictures of a terminal that takes no sequence which is not in order."""

    def __init__(self) -> None:
        self.kept: dict[int, Shown] = {}
        self._loading: tuple[int, str] | None = None

    def take(self, text: str) -> None:
        assert SEQUENCE.sub("", text) == ""
        for match in SEQUENCE.finditer(text):
            keys = dict(each.split("=") for each in match[1].split(","))
            data = match[2] or ""
            if self._loading is not None or keys.get("a") == "t":
                self._load(keys, data)
            elif keys["a"] == "p":
                assert keys["U"] == "1" and keys["q"] == "2" and keys["p"] == "1"
                number = int(keys["i"])
                placed = int(keys["c"]), int(keys["r"])
                self.kept[number] = self.kept[number]._replace(placed=placed)
            else:
                assert keys == {"a": "d", "d": "I", "i": keys["i"], "q": "2"}
                del self.kept[int(keys["i"])]
        assert self._loading is None

    def _load(self, keys: dict[str, str], data: str) -> None:
        if self._loading is None:
            assert (keys["a"], keys["f"], keys["q"]) == ("t", "100", "2")
            self._loading = int(keys["i"]), ""
        else:
            assert keys.keys() == {"m"}
        assert len(data) <= CHUNK and (keys["m"] == "0" or len(data) % 4 == 0)
        number, before = self._loading
        self._loading = number, before + data
        if keys["m"] == "0":
            with Image.open(io.BytesIO(b64decode(before + data, validate=True))) as image:
                image.load()
                self.kept[number] = Shown(np.asarray(image), None)
            self._loading = None


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    across, down = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    seed = draw(st.integers(0, 9))
    pixels = np.random.default_rng(seed).integers(0, 256, (down, across, 3), np.uint8)
    return Picture(pixels.tobytes(), across, down, "")


@given(pictures(), st.integers(1, (1 << 24) - 1), st.integers(1, 256), st.integers(1, 256))
def test_a_terminal_gets_each_pixel_in_pieces_that_it_takes(
    picture: Picture, number: int, columns: int, rows: int
) -> None:
    terminal = Pictures()
    terminal.take(transmission(picture, (columns, rows), number))
    shown = terminal.kept[number]
    assert shown.placed == (columns, rows)
    assert shown.pixels.shape == (picture.height, picture.width, 3)
    assert shown.pixels.tobytes() == picture.pixels
    terminal.take(deletion(number))
    assert not terminal.kept


@given(pictures(), st.floats(0.01, 0.99))
def test_a_picture_for_a_slow_line_has_fewer_pixels_in_the_same_cells(
    picture: Picture, scale: float
) -> None:
    terminal = Pictures()
    terminal.take(transmission(picture, (8, 4), 5, scale))
    down, across, _ = terminal.kept[5].pixels.shape
    assert across <= max(1, picture.width * scale) and down <= max(1, picture.height * scale)
    assert terminal.kept[5].placed == (8, 4)


def test_cells_take_one_column_and_have_the_marks_of_the_protocol() -> None:
    assert len(set(MARKS)) == 256 and sorted(MARKS) == list(MARKS)
    assert [ord(MARKS[at]) for at in (0, 1, 2, 255)] == [0x305, 0x30D, 0x30E, 0xA8E5]
    assert cells(2, 2) == (
        "\U0010eeee\u0305\u0305\U0010eeee\u0305\u030d",
        "\U0010eeee\u030d\u0305\U0010eeee\u030d\u030d",
    )
    lines = cells(300, 300)
    assert len(lines) == 256
    for line in lines:
        assert line.count(PLACEHOLDER) == width(line) == cell_len(line) == 256


SIZES = st.tuples(st.integers(1, 5000), st.integers(1, 5000))


@given(SIZES, st.tuples(st.integers(1, 400), st.integers(1, 400)), SIZES)
def test_a_picture_fills_the_space_and_no_more(
    size: tuple[int, int], space: tuple[int, int], cell: tuple[int, int]
) -> None:
    columns, rows = fitting(size, space, cell)
    most = min(space[0], 256), min(space[1], 256)
    assert 1 <= columns <= most[0] and 1 <= rows <= most[1]
    assert columns == most[0] or rows == most[1]


def test_the_form_of_a_picture_is_kept() -> None:
    assert fitting((640, 480), (100, 30), (10, 20)) == (80, 30)
    assert fitting((640, 480), (40, 30), (10, 20)) == (40, 15)
    assert fitting((64, 48), (100, 30), (8, 16)) == (80, 30), "a small one is made larger"


BLACK = Picture(bytes(300), 10, 10, "")
WHITE = Picture(b"\xff" * 300, 10, 10, "")


def test_the_terminal_keeps_one_picture_which_the_next_replaces_and_its_owner_deletes() -> None:
    terminal, picture, screen = Pictures(), TerminalPicture(), object()
    assert picture.show(screen, BLACK, (4, 2), 1.0)
    terminal.take(picture.take())
    assert not picture.show(screen, BLACK, (4, 2), 0.5), "not again in fewer pixels"
    assert picture.take() == "" and terminal.kept.keys() == {picture.number}
    # Of two pictures between two frames only the last is sent.
    assert picture.show(screen, BLACK, (5, 2), 1.0)
    assert picture.show(screen, WHITE, (4, 2), 1.0)
    terminal.take(picture.take())
    assert terminal.kept[picture.number].pixels.min() == 255
    picture.hide(object())
    assert picture.take() == ""
    picture.hide(screen)
    terminal.take(picture.take())
    assert not terminal.kept and picture.take() == picture.end() == ""


def test_a_picture_is_sent_again_to_a_terminal_that_was_given_back() -> None:
    terminal, picture, screen = Pictures(), TerminalPicture(), object()
    picture.show(screen, BLACK, (4, 2), 1.0)
    terminal.take(picture.take())
    terminal.take(picture.end())
    assert not terminal.kept
    terminal.take(picture.take())
    assert terminal.kept
    picture.forget()
    terminal.take(picture.take())


def test_only_frames_with_a_picture_tell_how_long_one_takes() -> None:
    picture = TerminalPicture()
    picture.shown(9.0)
    assert picture.took() is None
    picture.show(picture, BLACK, (4, 2), 1.0)
    picture.take()
    picture.shown(0.2)
    picture.shown(9.0)
    assert picture.took() == 0.2
    assert picture.took() is None


def pixels_after(detail: Detail, took: float | None, times: int, now: float = 0.0) -> float:
    for at in range(times):
        detail.measure_pixels(took, now + at, 0.0)
    return detail.pixels


def test_a_quick_terminal_gets_all_pixels_soon_and_one_that_says_nothing_no_more() -> None:
    assert pixels_after(Detail(), 0.02, 8) == 1.0
    detail = Detail()
    assert pixels_after(detail, None, 8) == Detail().pixels
    assert pixels_after(detail, 0.8 * SLOW_S, 8) == Detail().pixels, "as many as it can show"


def test_a_slow_terminal_gets_half_blocks_and_is_tried_again_more_and_more_seldom() -> None:
    detail, now, rests = Detail(), 0.0, []
    for _ in range(7):
        assert detail.sharp(now)
        while detail.sharp(now):
            detail.measure_pixels(2 * SLOW_S, now, 0.0)
        began = now
        while not detail.sharp(now):
            now += 1.0
        rests.append(now - began)
    assert rests[:3] == [REST_S, 2 * REST_S, 4 * REST_S] and rests[-1] == MAX_REST_S
    pixels_after(detail, 0.02, 8, now)
    while detail.sharp(now):
        detail.measure_pixels(2 * SLOW_S, now, 0.0)
    assert detail.sharp(now + REST_S), "it has shown all pixels meanwhile"


@pytest.mark.parametrize("busy", [True, False])
def test_a_busy_processor_gets_smaller_pictures(busy: bool) -> None:
    detail = Detail()
    for at in range(8):
        detail.measure_pixels(0.02, at / 10, at / 10 if busy else 0.0)
    assert (detail.pixels < 1.0) == busy
