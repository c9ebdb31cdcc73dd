"""The screens Topics and Topic: types of messages, and what is not read."""

from __future__ import annotations

import gc
import math
import re
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from dorad.control.messages import TopicInfo
from dorafleet.console.options import Options
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.screens.topic import TopicScreen
from dorafleet.console.screens.topics import TopicsScreen
from dorafleet.console.view.values import Message
from dorafleet.console.widgets.grid import Grid

from .driving import console
from .fakefleet import FakeFleet

if TYPE_CHECKING:
    from pathlib import Path


async def test_topics_show_the_type_of_messages_where_none_is_declared(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.messages = [("camera/image", pa.array([1.5]), {})]
    async with console(tmp_path, fleet, options=Options(start="topics pick")) as driven:
        text = await driven.until("double")
        assert "camera/image" in text
        # It is known now: no further message is needed.
        screen = driven.app.screen
        assert isinstance(screen, ConsoleScreen)
        screen.feeds.restart()
        await driven.until(lambda: fleet.rates_asked == 2)
        assert len(fleet.subscriptions) == 1
        assert (fleet.subscriptions[0].max_rate_hz, fleet.subscriptions[0].queue_size) == (1.0, 1)


async def test_messages_are_counted_on_over_another_view_and_the_gap_is_marked(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet(1)
    pixels = pa.array(np.zeros(12, np.uint8))
    image = {"width": 2, "height": 2, "encoding": "rgb8"}
    fleet.messages = [("camera/image", pixels, image)] * 3
    start = Options(start="topic pick camera/image echo")
    async with console(tmp_path, fleet, options=start) as driven:
        await driven.until("#3 image")
        await driven.press("v", "v")
        await driven.until("view: picture")
        await driven.press("v")
        await driven.until("view: echo")
        count = len(fleet.subscriptions)
        fleet.messages += [("camera/image", pixels, image)] * 2
        fleet.bell.ring()
        text = await driven.until("#5 image")
        assert count > 1
        assert re.search(r"#3 .*\n .* not read\n.* #4 ", text)
        kept = [each for each in gc.get_objects() if type(each) is Message]
        assert len(kept) >= 5
        assert sum(each.image is not None for each in kept) == 1, "the last one is shown"


async def test_views_that_are_tried_before_the_first_message_do_not_delay_it(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet(1)
    start = Options(start="topic pick camera/number")
    async with console(tmp_path, fleet, options=start) as driven:
        await driven.until("waiting for a message")
        await driven.until(lambda: len(fleet.subscriptions) == 1)
        for view in ("plot", "picture"):
            await driven.press("v")
            text = await driven.until(f"view: {view}")
        assert "no picture" not in text, "nobody knows yet"
        await driven.press("v")
        await driven.until("view: echo")
        assert len(fleet.subscriptions) == 1
        fleet.messages = [("camera/number", pa.array([1.5]), {})]
        fleet.bell.ring()
        await driven.until("#1 double")
        assert len(fleet.subscriptions) == 1
        await driven.press("v", "v")
        await driven.until("no picture: messages have no")
        await driven.until(lambda: len(fleet.subscriptions) == 2)


async def test_an_output_that_is_gone_is_painted_until_the_next_picture(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    async with console(tmp_path, fleet, options=Options(start="topics pick")) as driven:
        await driven.until("camera/image")
        screen = driven.app.screen
        assert isinstance(screen, TopicsScreen)
        fleet.outputs = ["depth"]
        # At once, not by an answer: it must be between two pictures.
        screen._topics = {"camera/depth": TopicInfo(node="camera", output="depth", subscribers=[])}
        screen.query_one(Grid).on_blur()
        screen.bring()
        await driven.until("camera/depth")


async def test_a_curve_is_broken_where_the_output_was_not_read(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.messages = [("camera/image", pa.array([1.0]), {})]
    async with console(tmp_path, fleet, options=Options(start="topic pick camera/image")) as driven:
        await driven.until("[0] 1")
        screen = driven.app.screen
        assert isinstance(screen, TopicScreen)
        screen.feeds.restart()
        fleet.messages += [("camera/image", pa.array([2.0]), {})]
        await driven.until("[0] 2")
        (curve, *_) = screen._series
        assert any(math.isnan(value) for _, value in curve.points)
