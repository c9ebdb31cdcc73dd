"""The file of an operator: loading, errors, and reloading."""

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dorad.node.runtime.config import OperatorEntry
from dorad.node.runtime.program import OperatorError, Program
from dorad.node.runtime.status import DoraStatus

GOOD = """
    from dora import DoraStatus

    class Operator:
        def __init__(self):
            self.count = 0

        def on_event(self, dora_event, send_output):
            self.count += 1
            send_output("out", STEP * self.count)
            return DoraStatus.CONTINUE

    STEP = 1
"""
EVENT = {"kind": "dora", "type": "INPUT", "id": "tick"}

Make = Callable[..., Program]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    compat = Path(__file__).parents[3] / "dorad" / "compat"
    monkeypatch.setattr(sys, "path", [str(compat), *sys.path])
    before = set(sys.modules)

    def write(source: str, name: str = "some_operator.py", operator: str = "it") -> Program:
        path = tmp_path / name
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return Program(OperatorEntry(operator, str(path)))

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def sent(program: Program) -> list[Any]:
    found: list[Any] = []
    assert program.on_event(EVENT, lambda _, data: found.append(data)) is DoraStatus.CONTINUE
    return found


def test_the_operator_gets_events_and_the_description_of_the_dataflow(make: Make) -> None:
    program = make(
        """
        from dora import DoraStatus

        class Operator:
            def on_event(self, dora_event, send_output):
                send_output("out", [dora_event["id"], self.dataflow_descriptor])
                return DoraStatus.CONTINUE
        """
    )
    program.describe({"nodes": []})
    assert sent(program) == [["tick", {"nodes": []}]]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def broken(", "cannot be loaded: SyntaxError: '(' was never closed"),
        ("import missing_module_x", "cannot be loaded: ModuleNotFoundError: No module named"),
        ("raise SystemExit(3)", "cannot be loaded: SystemExit: 3"),
        (
            "import asyncio\nraise asyncio.CancelledError('gone')",
            "cannot be loaded: CancelledError: gone",
        ),
        ("class Other: ...", "has no class `Operator`"),
        ("Operator = 1", "has no class `Operator`"),
        ("class Operator: ...", "no method `on_event(self, dora_event, send_output)`"),
        (
            "class Operator:\n    def on_input(self, *_): ...",
            "`on_input` is from dora before 0.2 and is not called",
        ),
        (
            "class Operator:\n    def on_event(self, *_): ...\n    def __init__(self, x): ...",
            "`Operator()` failed: TypeError",
        ),
        (
            "class Operator:\n    on_event = print\n    def __init__(self): raise GeneratorExit",
            "`Operator()` failed: GeneratorExit",
        ),
    ],
)
def test_a_file_without_a_valid_operator_is_an_error(
    make: Make, tmp_path: Path, source: str, expected: str
) -> None:
    with pytest.raises(OperatorError) as caught:
        make(source)
    assert str(caught.value).startswith(f"operator 'it' ({tmp_path / 'some_operator.py'}): ")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return None", "on_event returned None on INPUT tick, not a DoraStatus"),
        ("return 0", "on_event returned 0 on INPUT tick"),
        ("raise ValueError('no light')", "on_event failed on INPUT tick: ValueError: no light"),
        ("raise SystemExit(2)", "on_event failed on INPUT tick: SystemExit: 2"),
        ("raise SystemExit(0)", "on_event failed on INPUT tick: SystemExit: 0"),
        (
            "import asyncio; raise asyncio.CancelledError('gone')",
            "on_event failed on INPUT tick: CancelledError: gone",
        ),
        ("raise BaseException('odd')", "on_event failed on INPUT tick: BaseException: odd"),
    ],
)
def test_a_return_value_that_is_not_a_status_is_an_error(
    make: Make, body: str, expected: str
) -> None:
    program = make(f"class Operator:\n    def on_event(self, *_):\n        {body}")
    with pytest.raises(OperatorError) as caught:
        program.on_event(EVENT, print)
    assert expected in str(caught.value)


def test_an_interrupt_from_the_keyboard_is_no_error_of_the_operator(make: Make) -> None:
    program = make("class Operator:\n    def on_event(self, *_):\n        raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        program.on_event(EVENT, print)


def test_reloading_uses_the_new_code_and_keeps_the_state(make: Make) -> None:
    program = make(GOOD)
    assert sent(program) + sent(program) == [1, 2]
    program.path.write_text(textwrap.dedent(GOOD).replace("STEP = 1", "STEP = 9"))
    program.reload()
    assert sent(program) == [27]


@pytest.mark.parametrize(
    "edit",
    [
        "def broken(",
        "STEP = 5\nraise RuntimeError('half way')",
        "del Operator",
        "Operator = dict",
        "STEP = 5\nOperator.__init__ = lambda self: 1 / 0",
    ],
)
def test_a_broken_file_changes_nothing(make: Make, edit: str) -> None:
    program = make(GOOD)
    sent(program)
    program.path.write_text(textwrap.dedent(GOOD) + edit)
    with pytest.raises(OperatorError):
        program.reload()
    assert sent(program) == [2]
    program.path.write_text(textwrap.dedent(GOOD))
    program.reload()
    assert sent(program) == [3]


def test_an_edit_of_the_same_length_in_the_same_second_is_detected(make: Make) -> None:
    program = make(GOOD)
    for step in range(2, 9):
        program.path.write_text(textwrap.dedent(GOOD).replace("STEP = 1", f"STEP = {step}"))
        program.reload()
        assert sent(program) == [step * (step - 1)]


@pytest.mark.parametrize("name", ["json.py", "colorsys.py", "numpy.py"])
def test_an_operator_file_named_like_a_library_does_not_shadow_it(make: Make, name: str) -> None:
    program = make(f"import {name[:-3]} as library\n{textwrap.dedent(GOOD)}", name=name)
    assert sent(program) == [1]
    library = sys.modules[name[:-3]]
    assert library.__file__ != str(program.path)


def test_two_operators_from_one_file_are_two_objects(make: Make) -> None:
    one, two = make(GOOD, operator="one"), make(GOOD, operator="two")
    assert sent(one) + sent(one) + sent(two) == [1, 2, 1]


def test_a_module_beside_the_file_can_be_imported(make: Make, tmp_path: Path) -> None:
    (tmp_path / "helper_of_it.py").write_text("VALUE = 7")
    assert sent(
        make(
            "from helper_of_it import VALUE as STEP\n"
            + textwrap.dedent(GOOD).replace("STEP = 1", "")
        )
    ) == [7]
