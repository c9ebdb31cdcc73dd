"""The screens Topics and Topic: types of messages, and what is not read."""

import gc
import math
import re
from pathlib import Path

import numpy as np
import pyarrow as pa

from dorad.control.messages import Preview, TopicInfo
from dorafleet.console.options import ConsoleOptions
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.screens.topic import TopicScreen
from dorafleet.console.screens.topics import TopicsScreen
from dorafleet.console.view.placeholders import PLACEHOLDER, cells, deletion
from dorafleet.console.view.values import Content
from dorafleet.console.widgets.grid import Grid
from tests.control.test_pictures import file, raw

from .driving import console
from .fakefleet import FakeFleet
from .test_fields import wall


async def test_topics_show_the_type_of_messages_where_none_is_declared(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.messages = [("camera/image", pa.array([1.5]), {})]
    async with console(tmp_path, fleet, start="topics pick") as driven:
        text = await driven.until("double")
        assert "camera/image" in text
        # It is known now: no further message is needed.
        screen = driven.app.screen
        assert isinstance(screen, ConsoleScreen)
        screen.feeds.restart()
        await driven.until(lambda: fleet.rates_asked == 2)
        assert len(fleet.subscriptions) == 1
        assert (fleet.subscriptions[0].max_rate_hz, fleet.subscriptions[0].queue_size) == (1.0, 1)


PIXELS = pa.array(np.zeros(12, np.uint8))
IMAGE = {"width": 2, "height": 2, "encoding": "rgb8"}


async def test_messages_are_counted_on_over_a_pause_and_the_gap_is_marked(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.messages = [("camera/image", PIXELS, IMAGE)] * 3
    async with console(tmp_path, fleet, start="topic pick camera/image echo") as driven:
        await driven.until("#3 picture")
        await driven.press("v")
        await driven.until("view: picture")
        await driven.press("v")
        await driven.until("view: echo")
        assert len(fleet.subscriptions) == 1, "all views show the same messages"
        await driven.press("p", "p")
        await driven.until(lambda: len(fleet.subscriptions) == 2)
        fleet.messages += [("camera/image", PIXELS, IMAGE)] * 2
        fleet.bell.ring()
        text = await driven.until("#5 picture")
        assert re.search(r"#3 .*\n .* not read\n.* #4 ", text)
        kept = [each for each in gc.get_objects() if type(each) is Content]
        assert sum(each.picture is not None for each in kept) == 1, "that of the last one is shown"


async def test_views_that_are_tried_before_the_first_message_do_not_delay_it(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet(1)
    async with console(tmp_path, fleet, start="topic pick camera/number") as driven:
        await driven.until("waiting for a message")
        await driven.until(lambda: len(fleet.subscriptions) == 1)
        for view in ("fields", "plot", "table", "scan", "picture"):
            await driven.press("v")
            text = await driven.until(f"view: {view}")
        assert "no picture" not in text, "nobody knows yet"
        fleet.messages = [("camera/number", pa.array([1.5]), {})]
        fleet.bell.ring()
        await driven.until("no picture: messages have no")
        assert len(fleet.subscriptions) == 1
        for view in ("fields", "plot", "echo", "fields"):
            await driven.press("v")
            await driven.until(f"view: {view}")


def pose(at: int) -> pa.Array:
    objects = [{"id": n, "height": n / 2} for n in range(3)]
    return pa.array([{"frame": "map", "pose": {"x": at / 10, "y": 5.0 - at}, "objects": objects}])


async def test_a_struct_is_a_tree_and_enter_plots_its_fields_together(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.messages = [("camera/image", pose(at), {}) for at in range(20)]
    async with console(tmp_path, fleet, start="topic pick camera/image") as driven:
        text = await driven.until("view: fields")
        text = await driven.until("1.9")
        assert text.count("struct<frame") == 1, "the type stands once, above"
        assert re.search(r"pose\n +x +1\.9\n +y +-14", text)
        await driven.press("down", "enter")
        assert "last 30 s" not in driven.text, "a struct has no curve"
        await driven.press("down", "enter", "down", "enter")
        text = await driven.until("2 pose.y -14")
        assert "1 pose.x 1.9" in text and "objects" in text, "below the tree"
        await driven.press("enter")
        await driven.until(lambda: "pose.y -14" not in driven.text)
        await driven.press("v")
        text = await driven.until("view: plot")
        assert "pose.x 1.9" in text and "FIELD" not in text


async def test_enter_on_a_list_of_structs_shows_it_as_a_table_and_escape_leads_back(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet(1)
    fleet.messages = [("camera/image", pose(1), {})]
    async with console(tmp_path, fleet, start="topic pick camera/image") as driven:
        await driven.until("3 structs")
        await driven.press("end")
        await driven.until("enter table")
        await driven.press("enter")
        text = await driven.until("view: table")
        assert re.search(r"# +id +height\n +0 +0 +0\n +1 +1 +0\.5", text)
        await driven.press("escape")
        await driven.until("view: fields")
        fleet.messages.append(("camera/image", pa.array([{"a": 1}, {"a": 2}]), {}))
        fleet.bell.ring()
        await driven.until("struct<a: int64>[2]")
        await driven.press("v", "v")
        await driven.until("view: table")


async def test_a_jpeg_that_a_robot_could_not_decode_is_a_picture_and_a_bomb_says_why_not(
    tmp_path: Path,
) -> None:
    pixels = np.full((48, 64, 3), 200, np.uint8)
    fleet = FakeFleet(1)
    fleet.messages = [("camera/image", raw(file("jpeg", pixels)), {"encoding": "jpeg"})]
    async with console(tmp_path, fleet, start="topic pick camera/image") as driven:
        text = await driven.until("▀" * 30)
        assert "view: picture" in text and "64x48 jpeg" in text
        assert fleet.subscriptions[0].max_rate_hz == 10.0
        large = raw(file("png", np.zeros((4000, 4000), np.uint8)))
        fleet.messages.append(("camera/image", large, {"encoding": "png"}))
        fleet.bell.ring()
        await driven.until("a PNG of 4000x4000 pixels is too large")


async def test_a_terminal_with_placeholders_gets_a_picture_of_all_pixels_that_it_has(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet(1)
    pixels = raw(np.full((480, 640, 3), 200, np.uint8).tobytes())
    image = {"width": 640, "height": 480, "encoding": "rgb8"}
    fleet.messages = [("camera/image", pixels, image)]
    options = ConsoleOptions(start="topic pick camera/image", pixels=True)
    async with console(tmp_path, fleet, options=options) as driven:
        await driven.until(PLACEHOLDER)
        await driven.until(lambda: len(fleet.subscriptions) == 2)
        sizes = [each.preview for each in fleet.subscriptions]
        assert sizes == [Preview(width=100, height=60), Preview(width=1000, height=600)]
        assert [each.max_rate_hz for each in fleet.subscriptions] == [10.0, 2.2]
        picture = driven.app.frames.picture
        assert picture.take(), "the next frame has it"
        # Under a dialog colours are other ones, and so would be the number of the picture.
        await driven.press("a")
        await driven.until("Actions for")
        await driven.until("▀" * 30)
        assert PLACEHOLDER not in driven.text and picture.take() == deletion(picture.number)
        await driven.press("escape")
        await driven.until(PLACEHOLDER)
        screen = driven.app.screen
        assert isinstance(screen, TopicScreen)
        assert not any(PLACEHOLDER in line for line in screen.text_lines())
        for theme in ("mono", "ansi"):
            driven.app.use_theme(theme)
            screen.repaint()
            await driven.until(lambda: PLACEHOLDER not in driven.text)
        driven.app.use_theme("light")
        screen.repaint()
        await driven.until(PLACEHOLDER)
        await driven.press("v")
        await driven.until("view: blocks")
        await driven.until("▀" * 30)
        await driven.until(lambda: fleet.subscriptions[-1].preview == sizes[0])
        await driven.press("v", "v")
        await driven.until(PLACEHOLDER)
        picture.take()
        await driven.press("escape")
        await driven.until("Fleet")
        await driven.until(lambda: picture.take() == deletion(picture.number))


async def test_a_node_cannot_write_cells_of_a_picture(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    forged = "".join(cells(3, 1))
    fleet.messages = [("camera/image", pa.array([{forged: forged}]), {forged: forged})]
    options = ConsoleOptions(start="topic pick camera/image echo", pixels=True)
    async with console(tmp_path, fleet, options=options) as driven:
        for view in ("echo", "fields"):
            await driven.until(f"view: {view}")
            await driven.until("\\U0010eeee")
            assert PLACEHOLDER not in driven.text
            await driven.press("v")


async def test_a_scan_of_a_lidar_is_drawn_as_one(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.messages = [("camera/image", pa.array([wall()]), {})]
    async with console(tmp_path, fleet, start="topic pick camera/image") as driven:
        await driven.until("59 of 360 ranges, nearest 2 m")
        await driven.press("v")
        await driven.until("view: echo")
        await driven.press("v")
        text = await driven.until("view: fields")
        assert "360 values: " in text


async def test_an_output_that_is_gone_is_painted_until_the_next_picture(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    async with console(tmp_path, fleet, start="topics pick", shows="camera/image") as driven:
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
    async with console(tmp_path, fleet, start="topic pick camera/image", shows="[0] 1") as driven:
        screen = driven.app.screen
        assert isinstance(screen, TopicScreen)
        screen.feeds.restart()
        fleet.messages += [("camera/image", pa.array([2.0]), {})]
        await driven.until("[0] 2")
        (curve, *_) = screen._series.values()
        assert any(math.isnan(value) for _, value in curve.points)
