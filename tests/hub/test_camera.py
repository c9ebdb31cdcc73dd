"""The hub's camera demo without camera and screen, recorded as training data."""

import json
import struct
from typing import Any

import pytest

from tests.harness.process import Outcome

from .conftest import Case
from .tap import Tap

SECONDS = 16
ANSWERS = range(5)


@pytest.fixture(scope="module")
def outcome(run_case: Case) -> Outcome:
    return run_case(
        "camera", "camera.yml", stop_after=SECONDS, env={"CI": "true"}, folders=("lf/data",)
    )


@pytest.fixture(scope="module")
def tap(outcome: Outcome) -> Tap:
    return Tap(outcome.folder)


@pytest.fixture(scope="module")
def lines(outcome: Outcome) -> list[dict[str, Any]]:
    file = outcome.folder / "lf" / "data" / "demo.json"
    assert file.exists(), f"the recorder wrote no demo.json:\n{outcome.output}"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_it_ends_with_0(outcome: Outcome) -> None:
    outcome.expect(0)


def test_five_conversations_are_recorded(lines: list[dict[str, Any]]) -> None:
    assert len(lines) == len(ANSWERS)


@pytest.mark.parametrize("number", ANSWERS)
def test_a_conversation_holds_question_answer_and_image(
    lines: list[dict[str, Any]], number: int
) -> None:
    line = lines[number]
    # The label may come second: the first line then has the default question.
    questions = ["<image>hello", "<image>what"] if number == 0 else ["<image>hello"]
    question, answer = line["messages"]
    assert question["role"] == "user"
    assert question["content"] in questions
    assert answer == {"content": f"answer {number}", "role": "assistant"}
    assert line["images"] == [f"demo/image-{number}.png"]
    assert set(line) == {"messages", "images"}


@pytest.mark.parametrize("number", ANSWERS)
def test_each_recorded_image_is_320_by_240(outcome: Outcome, number: int) -> None:
    png = (outcome.folder / "lf" / "data" / "demo" / f"image-{number}.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", png[16:24]) == (320, 240)


def test_the_answers_are_sent_on_in_order(tap: Tap) -> None:
    assert tap.values("text") == [[f"answer {number}"] for number in ANSWERS]


def test_the_answers_carry_the_images_metadata_changed(tap: Tap) -> None:
    for event in tap.inputs("text"):
        assert event["meta"] == {
            "encoding": "jpeg",
            "width": 320,
            "height": 240,
            "primitive": "text",
            "timestamp": "AUTO",
        }
