"""The report of a dataflow's failures."""

import itertools
import signal

import pytest

from dorad.daemon.rules.exits import ExitContext, Outcome, Result, classify, never_started
from dorad.daemon.rules.report import (
    MAX_LINES_SIZE,
    MAX_NAMES,
    NO_NODE,
    explained,
    failure_report,
    failure_text,
)
from dorad.launch.model import Exit
from dorad.link.frames import Event, EventKind, Opening, decode, encode_event
from dorad.node.protocol import encode


def result(name: str, outcome: Outcome, code: int = 1, root_cause: str | None = None) -> Result:
    stderr = (f"{name} says why",)
    return Result(name, outcome, Exit(code=code), f"exited with code {code}", root_cause, stderr)


def test_without_failures_there_is_no_report() -> None:
    assert failure_report([result("a", Outcome.OK, 0)]) == ()


def test_each_failed_node_has_its_block() -> None:
    blocks = failure_report([result("a", Outcome.FAILED), result("b", Outcome.GRACE, 137)])
    assert [block.headline for block in blocks] == [
        "node a exited with code 1",
        "node b exited with code 137",
    ]
    assert blocks[0].lines == ("a says why",)


def test_consequences_are_counted_behind_the_cause() -> None:
    blocks = failure_report(
        [
            result("b", Outcome.CASCADING, root_cause="a"),
            result("a", Outcome.FAILED),
            result("c", Outcome.CASCADING, root_cause="a"),
        ]
    )
    assert [block.headline for block in blocks] == [
        "node a exited with code 1",
        "2 other nodes failed because of that: b, c",
    ]
    assert blocks[1].lines == ()


def test_a_root_cause_that_ended_with_code_0_is_named_too() -> None:
    blocks = failure_report(
        [result("a", Outcome.OK, 0), result("b", Outcome.CASCADING, root_cause="a")]
    )
    assert [block.headline for block in blocks] == [
        "node a exited with code 0 before it called Node(), so the dataflow could not start",
        "1 other node failed because of that: b",
    ]


def test_many_consequences_are_not_all_named() -> None:
    many = [result(f"n{i}", Outcome.CASCADING, root_cause="a") for i in range(20)]
    headline = failure_report([result("a", Outcome.FAILED), *many])[1].headline
    assert headline.startswith("20 other nodes failed because of that: n0, n1,")
    assert headline.endswith("n7, ...")


def test_as_many_consequences_as_may_be_named_are_all_named() -> None:
    many = [result(f"n{i}", Outcome.CASCADING, root_cause="a") for i in range(MAX_NAMES)]
    headline = failure_report([result("a", Outcome.FAILED), *many])[1].headline
    assert headline.endswith(f", n{MAX_NAMES - 1}")


@pytest.mark.long
def test_what_nodes_write_before_they_fail_does_not_make_the_report_huge() -> None:
    """One of 20 MB would fit into no frame: no client could ask, and the robot could not report."""
    written = ("x" * (1 << 20),) * 50
    failed = [
        Result(f"n{number}", Outcome.FAILED, Exit(1, None), "exited with code 1", stderr=written)
        for number in range(500)
    ]
    blocks = failure_report(failed)
    assert [block.headline for block in blocks] == [
        f"node n{number} exited with code 1" for number in range(500)
    ]
    assert len(blocks[0].lines) == 20
    assert sum(len(line) for block in blocks for line in block.lines) <= MAX_LINES_SIZE


def test_a_report_that_is_just_full_has_the_lines_of_all_failures_and_one_more_has_none() -> None:
    lines = ("x" * 1000,) * 20
    full = MAX_LINES_SIZE // 20_000
    failed = [
        Result(f"n{number}", Outcome.FAILED, Exit(1, None), "exited with code 1", stderr=lines)
        for number in range(full + 2)
    ]
    found = failure_report(failed)
    assert [len(each.lines) for each in found] == [20] * full + [0, 0]


def ends_of(node: str, does: str, cause: str | None) -> list[Result]:
    """Return each result that a node may have: at whichever moment another one aborted the start.

    It `fails` or `leaves` before it calls `Node()`, or `waits` there.
    """
    if does != "waits":
        exit_ = Exit(code=int(does == "fails"))
        return [classify(node, exit_, ExitContext(stopping=bool(cause), root_cause=cause))]
    refused = ExitContext(stopping=True, root_cause=cause, refused=True)
    stopped = ExitContext(stopping=True, root_cause=cause)
    forced = ExitContext(stopping=True, root_cause=cause, forced_reason="had to be killed")
    return [
        never_started(node, cause),
        classify(node, Exit(signal=signal.SIGTERM), stopped),
        classify(node, Exit(signal=signal.SIGKILL), forced),
        classify(node, Exit(code=1), refused),
        classify(node, Exit(code=0), refused),  # the program has caught the exception
    ]


@pytest.mark.parametrize(
    "plan",
    [plan for plan in itertools.product(("fails", "leaves", "waits"), repeat=3) if "fails" in plan],
)
def test_the_report_on_a_failed_start_does_not_depend_on_the_order_of_the_ends(
    plan: tuple[str, ...],
) -> None:
    nodes = {f"n{number}": does for number, does in enumerate(plan)}
    reports = set()
    for order in itertools.permutations(nodes):
        cause = next(name for name in order if nodes[name] != "waits")
        choices = [ends_of(name, nodes[name], None if name == cause else cause) for name in order]
        for results in itertools.product(*choices):
            blocks = failure_report(results)
            reports.add(tuple(block.headline for block in blocks))
    assert len(reports) == 1


def test_consumers_of_a_failed_node_get_the_end_of_its_stderr() -> None:
    text = failure_text(result("a", Outcome.FAILED))
    first, rule, line, end, nothing = text.split("\n")
    assert (first, line, nothing) == ("exited with code 1 with stderr output:", "a says why", "")
    assert rule == end == "-" * 81


def test_a_node_that_wrote_nothing_has_failed_with_its_exit_code_alone() -> None:
    for stderr in ((), ("", "  ")):
        silent = Result("a", Outcome.FAILED, Exit(code=4), "exited with code 4", None, stderr)
        assert failure_text(silent) == "exited with code 4"


@pytest.mark.parametrize("character", ["x", "\x01", "é", "\U0001f916", "\udcff"])
def test_long_stderr_is_cut_to_what_fits_into_packets_and_links(character: str) -> None:
    lines = (*(character * 100_000 for _ in range(50)), "the end")
    long = Result("a", Outcome.FAILED, Exit(code=1), "exited with code 1", None, lines)
    text = failure_text(long)
    assert "\nthe end\n" in text
    encode("failed", {"source_node_id": "a", "error": text, "affected_input_ids": ["x"] * 100})
    event = Event(Opening(1, 2, 3), 1, EventKind.FAILED, text)
    (read,) = decode(encode_event(event))
    assert read == event


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("AttributeError: 'Node' object has no attribute 'send'", "`node.send_output("),
        ("AttributeError: 'Node' object has no attribute 'publish'", "`node.send_output("),
        ("AttributeError: 'Node' object has no attribute 'recv'", "`node.next()`"),
        ("AttributeError: 'Node' object has no attribute 'events'", "`for event in node:`"),
        ("TypeError: 'type' object is not iterable", "`node = Node()`"),
        ("TypeError: 'type' object is not an iterator", "`node = Node()`"),
        (
            "TypeError: Node.next() missing 1 required positional argument: 'self'",
            "`node = Node()`",
        ),
    ],
)
def test_a_wrong_call_of_a_node_has_the_right_one_as_its_hint(line: str, hint: str) -> None:
    last = explained(("Traceback (most recent call last):", line))[-1]
    assert last.startswith("hint: ")
    assert hint in last


def test_attributes_of_a_node_that_are_no_words_for_a_call_have_no_hint() -> None:
    line = "AttributeError: 'Node' object has no attribute 'sender'"
    assert explained(("Traceback (most recent call last):", line))[-1] == line


def test_a_numpy_that_does_not_fit_has_a_hint() -> None:
    for line in (
        "ImportError: numpy.core.multiarray failed to import",
        "AttributeError: _ARRAY_API not found",
        "ValueError: numpy.dtype size changed, may indicate binary incompatibility",
        "ImportError: A module that was compiled using NumPy 1.x cannot be run in NumPy 2.4",
    ):
        *_, hint = explained(("Traceback (most recent call last):", line))
        assert "`pip install --force-reinstall numpy pyarrow`" in hint


def test_of_nodes_that_have_ended_too_early_only_the_cause_has_a_hint() -> None:
    first = Result("a", Outcome.OK, Exit(code=0), "exited with code 0", None, ("bye",))
    other = Result("b", Outcome.OK, Exit(code=0), "exited with code 0", "a", ())
    third = Result("c", Outcome.OK, Exit(code=0), "exited with code 0", None, ())
    found = failure_report([third, other, first])
    assert [(each.headline.partition(" exited")[0], each.lines) for each in found] == [
        ("node a", ("bye", NO_NODE)),
        ("node b", ()),
    ]


def test_without_a_cause_nodes_are_named_in_the_order_of_their_ends() -> None:
    found = failure_report([result("b", Outcome.FAILED), result("a", Outcome.FAILED)])
    assert [each.headline for each in found] == [
        "node b exited with code 1",
        "node a exited with code 1",
    ]


def test_only_a_program_of_the_user_hides_a_module() -> None:
    lines = (
        '  File "/usr/lib/python3.11/json/decoder.py", line 1, in <module>',
        '  File "/usr/lib/python3.11/random.py", line 1, in <module>',
        '  File "/home/ann/camera.py", line 1, in <module>',
        '  File "/home/ann/random.py", line 1, in <module>',
        "ImportError: cannot import name 'x' from partially initialized module 'random'",
    )
    hint = "/home/ann/random.py hides the module `random`: give that file another name"
    assert any(hint in line for line in explained(lines))
    assert not any("hides the module" in line for line in explained(lines[:3] + lines[4:]))
    assert not any("hides the module" in line for line in explained(lines[:4]))
