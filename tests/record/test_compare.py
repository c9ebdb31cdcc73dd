"""What counts as equal, and how the first difference is named."""

import math
from types import SimpleNamespace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.record.compare import Content, Rules, difference
from dorad.record.diff import differences
from dorad.record.mcap.reader import RecordingError, RecordingReader
from dorad.record.replay.checker import Checker, DifferentError
from dorad.record.replay.config import ReplayConfig
from tests.record.files import numbers, write

EVERYTHING = Rules()


def found(one, other, rules=EVERYTHING, left=None, right=None):
    each = difference(
        "det/boxes",
        3,
        Content(pa.array(one), left or {}),
        Content(pa.array(other), right or {}),
        rules,
    )
    return None if each is None else (each.path, each.expected, each.found)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1, 2, 3], [1, 5, 3], ("data[1]", "2", "5")),
        ([1.0, 2.0], [1.0, 2.0001], ("data[1]", "2.0", "2.0001")),
        ([1, 2], [1], ("length", "2", "1")),
        ([1], [1.0], ("type", "'int64'", "'double'")),
        (["a"], ["b"], ("data[0]", "'a'", "'b'")),
        ([{"a": 1, "b": [1, 2]}], [{"a": 1, "b": [1, 3]}], ("data[0].b[1]", "2", "3")),
        ([[1], [2]], [[1], [2, 3]], ("data[1] length", "1", "2")),
        ([None, 1], [0, 1], ("data[0]", "None", "0")),
        ([[1], None], [[1], [2]], ("data[1]", "None", "[2]")),
        ([[1], [2]], [[1], None], ("data[1]", "[2]", "None")),
        ([True], [False], ("data[0]", "True", "False")),
    ],
)
def test_the_first_difference_has_a_path(one, other, expected):
    assert found(one, other) == expected


def test_values_that_python_or_numpy_cannot_hold_are_compared():
    """NumPy arrays of intervals end the process; `datetime` has no nanoseconds."""
    month = pa.MonthDayNano([1, 2, 3])
    assert found([month], [pa.MonthDayNano([1, 2, 4])]) == ("data[0][2]", "3", "4")
    assert found([month], [month]) is None
    for kind in (pa.duration("ns"), pa.time64("ns"), pa.timestamp("ns")):
        one, other = (pa.array([value], kind) for value in (5, 6))
        assert found(one, one) is None
        place, *_ = found(one, other)
        assert place == "data[0]"
        # A tolerance is for numbers.
        assert found(one, other, Rules(0.9)) is not None


@pytest.mark.parametrize(
    "kind", [pa.time32("s"), pa.time64("us"), pa.date32(), pa.timestamp("ms", "UTC"), pa.bool_()]
)
def test_times_dates_and_truths_are_compared_and_shown(kind):
    width = pa.int32() if kind in (pa.time32("s"), pa.date32()) else pa.int64()
    one, other = (pa.array([0, value], width).cast(kind) for value in (0, 1))
    assert found(one, one) is None
    place, left, right = found(one, other)
    assert place == "data[1]"
    assert left != right


def test_equal_messages_do_not_differ():
    assert found([1.5, math.nan], [1.5, math.nan]) is None
    assert found([{"a": [1.0]}], [{"a": [1.0]}], left={"n": 1}, right={"n": 1}) is None


def test_a_tolerance_is_absolute_or_relative():
    assert found([1.0, 1000.0], [1.05, 1050.0], Rules(0.06)) is None
    assert found([1.0], [1.2], Rules(0.06)) == ("data[0]", "1.0", "1.2")
    assert found([{"a": 1.0}], [{"a": 1.05}], Rules(0.06)) is None
    assert found([100], [103], Rules(0.06)) is None
    assert found([math.nan], [1.0], Rules(0.06)) is not None


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64(), pa.decimal128(20, 4)])
@pytest.mark.parametrize(("number", "equal"), [("1.0625", True), ("1.1875", False), ("-1", False)])
def test_a_tolerance_is_the_same_for_all_types_of_numbers_flat_or_nested(kind, number, equal):
    """`numpy.isclose` adds both tolerances up: 1.1875 was as good as 1 with 0.125."""
    one, other = (pa.array([text]).cast(pa.float32()).cast(kind) for text in ("1", number))
    for left, right in ((one, other), (nested(one), nested(other))):
        assert (found(left, right, Rules(0.125)) is None) == equal
        assert found(left, right) is not None


def nested(array):
    return pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), array)


@pytest.mark.parametrize("other", [-math.inf, math.nan, 1e308])
def test_no_tolerance_makes_infinity_equal_to_another_number(other):
    for one, two in (([math.inf], [other]), ([[math.inf]], [[other]])):
        assert found(one, two, Rules(10.0)) is not None
        assert found(one, one, Rules(10.0)) is None


def test_zeros_and_dictionaries_are_compared_by_value():
    assert found([0.0], [-0.0]) is None
    assert found([[0.0]], [[-0.0]]) is None
    one = pa.array(["a", "b"]).dictionary_encode()
    other = pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.int32()), pa.array(["b", "a"]))
    assert found(one, other) is None


def test_both_times_of_a_difference_are_written_alike():
    one, other = (pa.array([value], pa.timestamp("ns")) for value in (1, 1000))
    assert found(one, other) == ("data[0]", "1", "1000")


def test_after_a_field_that_is_ignored_the_next_one_counts():
    rules = Rules(ignore=["*:metadata.a", "*:data"])
    many = {"left": {"a": 1, "b": 1}, "right": {"a": 2, "b": 2}}
    assert found([1], [2], rules, **many) == ("metadata.b", "1", "2")
    assert found([1], [1, 2], rules) is None


@pytest.mark.parametrize(("length", "shown"), [(118, 120), (119, 120)])
def test_a_long_value_is_shown_in_part(length, shown):
    """With its quotes it has two characters more."""
    _, left, right = found(["x" * length], ["y"])
    assert len(left) == shown
    assert left.endswith("..." if length > 118 else "x'")
    assert right == "'y'"
    assert found([1], [1], left={"n": "nothing"}, right={"n": "z"})[1] == "nothing"


def test_a_truth_is_no_number():
    for rules in (EVERYTHING, Rules(2.0)):
        assert found([1], [1], rules, {"n": True}, {"n": 1}) == ("metadata.n", "True", "1")
        assert found([1], [1], rules, {"n": True}, {"n": False}) is not None
        assert found([1], [1], rules, {"n": "1"}, {"n": 1}) is not None
    assert found([1], [1], Rules(2.0), {"n": 1}, {"n": 2}) is None
    assert found([1], [1], EVERYTHING, {"n": math.nan}, {"n": math.nan}) is None
    assert found([1], [1], EVERYTHING, {"n": math.nan}, {"n": 1.0}) is not None


def test_a_topic_has_its_own_tolerance():
    rules = Rules(0.0, {"det/*": 0.5})
    assert found([1.0], [1.2], rules) is None
    assert rules.tolerance_of("other/x") == 0.0


def test_metadata_are_compared_but_for_times_and_ids():
    assert found([1], [1], left={"n": 1}, right={"n": 2}) == ("metadata.n", "1", "2")
    assert found([1], [1], left={"n": 1}) == ("metadata.n", "1", "nothing")
    assert found([1], [1], left={"timestamp": 1, "request_id": "a"}) is None


@pytest.mark.parametrize("pattern", ["det/boxes", "det/*", "*:metadata.n", "det/boxes:metadata.*"])
def test_what_is_ignored_is_not_compared(pattern):
    assert found([1], [1], Rules(ignore=[pattern]), left={"n": 1}) is None


def test_ignoring_one_field_still_finds_the_others():
    rules = Rules(ignore=["*:data*.a"])
    assert found([{"a": 1, "b": 1}], [{"a": 2, "b": 1}], rules) is None
    assert found([{"a": 1, "b": 1}], [{"a": 2, "b": 2}], rules) == ("data[0].b", "1", "2")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1, 2, 3], [1, 5, 3]),
        ([1.0, None], [2.0, None]),
        ([1, 2], [1]),
        ([1], [1.0]),
        (["a"], ["b"]),
        ([{"a": 1, "b": [1, 2]}], [{"a": 1, "b": [1, 3]}]),
        ([[1], [2]], [[1], [2, 3]]),
        ([pa.MonthDayNano([1, 2, 3])], [pa.MonthDayNano([1, 2, 4])]),
    ],
)
def test_the_path_of_a_difference_is_what_ignores_it(one, other):
    path, *_ = found(one, other)
    for topic in ("det/boxes", "det/*"):
        assert found(one, other, Rules(ignore=[f"{topic}:{path}"])) is None
    assert found(one, other, Rules(ignore=[f"other/x:{path}"])) is not None


def test_after_an_item_that_is_ignored_the_next_one_counts():
    rules = Rules(ignore=["*:data[0]", "*:data[2]"])
    assert found([1, 2, 3], [9, 2, 9], rules) is None
    assert found([1, 2, 3], [9, 8, 9], rules) == ("data[1]", "2", "8")
    # No class of characters: this is one item, and not `data1`.
    assert found([1], [2], Rules(ignore=["*:data[1]"])) is not None
    assert found([1], [2], Rules(ignore=["*:data[*]"])) is None
    assert found([1, 2], [1], Rules(ignore=["*:length", "*:data[0]"])) is None
    assert found([1, 2], [3], Rules(ignore=["*:length"])) == ("data[0]", "1", "3")
    nested = {"left": {"a": {"b": [1, 2]}}, "right": {"a": {"b": [1, 3]}}}
    assert found([1], [1], **nested)[0] == "metadata.a.b[1]"
    assert found([1], [1], Rules(ignore=["*:metadata.a.b[1]"]), **nested) is None


arrays = st.lists(st.one_of(st.none(), st.floats(width=32)), max_size=5)


@given(arrays, arrays)
def test_messages_differ_exactly_if_their_values_do(one, other):
    kinds = (pa.array(one, pa.float32()), pa.array(other, pa.float32()))
    expected = repr(kinds[0].to_pylist()) == repr(kinds[1].to_pylist()) or _equal(one, other)
    each = difference("a/b", 0, Content(kinds[0], {}), Content(kinds[1], {}), Rules())
    assert (each is None) == expected


def _equal(one, other):
    return len(one) == len(other) and all(
        a == b or (a is not None and b is not None and math.isnan(a) and math.isnan(b))
        for a, b in zip(one, other, strict=True)
    )


def test_two_recordings_are_compared_topic_by_topic(tmp_path):
    lines = numbers(10)
    one = write(tmp_path / "one.mcap", lines)
    changed = [*lines, ("other/x", 500, pa.array([1]), {})]
    changed[4] = (*changed[4][:2], pa.array([99]), {"n": 4})
    two = write(tmp_path / "two.mcap", changed)
    with RecordingReader(one) as left, RecordingReader(two) as right:
        assert differences(left, left, Rules()) == ([], 10)
        wrong, _ = differences(left, right, Rules())
        assert [str(each) for each in wrong] == [
            "other/x, message 0: expected no message, got 1 x int64",
            "source/number, message 4, data[0]: expected 4, got 99",
        ]
        with pytest.raises(RecordingError, match="nope"):
            differences(left, right, Rules(), ["nope/x"])


def test_the_compared_topics_can_be_chosen_and_must_exist(tmp_path):
    lines = [(topic, n, pa.array([n]), {}) for topic in ("a/x", "b/y") for n in range(3)]
    one = write(tmp_path / "one.mcap", lines)
    two = write(tmp_path / "two.mcap", [(lines[0][0], 0, pa.array([7]), {}), *lines[1:-1]])
    none = write(tmp_path / "none.mcap", [])
    with RecordingReader(one) as left, RecordingReader(two) as right:
        wrong, compared = differences(left, right, Rules(), ["b/y"])
        assert (compared, [str(each) for each in wrong]) == (
            3, ["b/y, message 2: expected 1 x int64, got no message"],
        )  # fmt: skip
        # After its first difference a topic is not read on.
        wrong, compared = differences(left, right, Rules())
        assert (compared, [each.topic for each in wrong]) == (4, ["a/x", "b/y"])
        wrong, compared = differences(left, right, Rules(ignore=["b/*"]))
        assert (compared, [each.topic for each in wrong]) == (1, ["a/x"])
        with pytest.raises(RecordingError, match="every topic is ignored"):
            differences(left, right, Rules(ignore=["*"]))
        with pytest.raises(RecordingError, match="every topic is ignored"):
            differences(left, right, Rules(ignore=["a/x"]), ["a/x"])
    with (
        RecordingReader(none) as left,
        pytest.raises(RecordingError, match="the recordings have no messages"),
    ):
        differences(left, left, Rules())


class Unreadable:
    def decode(self):
        raise ValueError("it is damaged")


def test_a_message_that_cannot_be_read_ends_the_comparison_or_is_named():
    whole, damaged = (
        SimpleNamespace(
            topics=lambda: {"a/x": 1}, messages=lambda *, topics, each=each: iter([each])
        )
        for each in (SimpleNamespace(decode=lambda: Content(pa.array([1]), {})), Unreadable())
    )
    with pytest.raises(RecordingError, match=r"a/x, message 0 cannot be compared: it is damaged"):
        differences(whole, damaged, Rules())
    none = SimpleNamespace(topics=lambda: {"a/x": 0}, messages=lambda *, topics: iter(()))
    ((wrong,), _) = differences(none, damaged, Rules())
    assert wrong.found == "a message that cannot be read: it is damaged"


# -- whole topics that are left out, and live nodes


def test_a_pattern_of_topics_leaves_out_whole_topics_and_no_others():
    rules = Rules(ignore=["det/*", "*:metadata.n"])
    assert rules.ignores("det/boxes")
    assert not rules.ignores("cam/boxes")
    assert not rules.ignores("cam/boxes", "data[0]")
    assert rules.ignores("cam/boxes", "metadata.n")
    # A pattern of a path is none of a topic.
    assert not Rules(ignore=["*:*"]).ignores("cam/boxes")
    assert Rules(ignore=["*:*"]).ignores("cam/boxes", "data")
    assert not Rules(ignore=["other", "a:b"]).ignores("a", "c")
    assert found([1], [2], Rules(ignore=["det/*"])) is None
    assert found([1], ["x"], Rules(ignore=["det/*"])) is None
    assert found([1], [2], Rules(ignore=["cam/*"])) is not None


def test_the_first_pattern_that_fits_a_topic_gives_its_tolerance():
    rules = Rules(0.5, {"cam/*": 0.0, "*/boxes": 0.25})
    assert [rules.tolerance_of(each) for each in ("cam/boxes", "det/boxes", "x/y")] == [
        0.0,
        0.25,
        0.5,
    ]


class Recording:
    """The messages of one topic after another, and what was asked for."""

    def __init__(self, **topics):
        self.topics = {name.replace("_", "/"): values for name, values in topics.items()}
        self.asked = []

    def messages(self, *, start, end, topics):
        self.asked.append((start, end, topics))
        (topic,) = topics
        for value in self.topics.get(topic, ()):
            yield SimpleNamespace(decode=lambda value=value: Content(pa.array([value]), {"n": 1}))


def checker(*recordings, checked=("a/x", "b/y"), **more):
    config = ReplayConfig(files=[], topics=[], checked=list(checked), start=5, end=9, **more)
    return Checker(recordings, config)


def test_a_live_node_must_send_what_is_recorded_from_one_file_after_the_other():
    files = Recording(a_x=[1, 2], b_y=[7]), Recording(a_x=[3])
    check = checker(*files)
    for topic, value in [("a/x", 1), ("b/y", 7), ("a/x", 2), ("c/z", 0), ("a/x", 3)]:
        check.take(topic, pa.array([value]), {"n": 1})
    assert check.finish() == 4
    assert check.counts == {"a/x": 3, "b/y": 1}
    assert set(files[1].asked) == {(5, 9, frozenset({"a/x"})), (5, 9, frozenset({"b/y"}))}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1, 5], "a/x, message 1, data[0]: expected 2, got 5"),
        ([1, 2, 3], "a/x, message 2: expected no more messages, got 1 x int64"),
        ([1], "a/x, message 1: expected 1 x int64, got no message"),
    ],
)
def test_a_live_node_that_sends_something_else_more_or_less_is_named(values, text):
    check = checker(Recording(a_x=[1, 2]))
    with pytest.raises(DifferentError) as raised:
        for value in values:
            check.take("a/x", pa.array([value]), {"n": 1})
        check.finish()
    assert str(raised.value) == str(raised.value.difference) == text


def test_metadata_and_tolerances_count_for_live_nodes_and_ignored_topics_do_not():
    check = checker(
        Recording(a_x=[100, 100], b_y=[1]), tolerance=0.1, tolerances={"b/*": 0.0}, ignore=["b/*"]
    )
    check.take("a/x", pa.array([105]), {"n": 1})
    check.take("b/y", pa.array(["?"]), {})
    with pytest.raises(DifferentError, match=r"metadata\.n: expected 1, got nothing"):
        check.take("a/x", pa.array([100]), {})
    assert check.counts == {"a/x": 2, "b/y": 0}
    assert check.finish() == 2, "nothing of b/y is missing"


@pytest.mark.parametrize("values", [[5], []])
def test_a_recorded_message_that_cannot_be_read_is_a_difference_and_no_crash(values):
    def fail():
        raise ValueError("its bytes are damaged")

    recording = Recording()
    recording.messages = lambda **_: iter([SimpleNamespace(decode=fail)])
    check = checker(recording, checked=("a/x",))
    with pytest.raises(DifferentError, match=r"message 0: expected .* bytes are damaged, got "):
        for value in values:
            check.take("a/x", pa.array([value]), {})
        check.finish()
