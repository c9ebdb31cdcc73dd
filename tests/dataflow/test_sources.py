"""The sources of an input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.dataflow.errors import TextError
from dorad.dataflow.model import LogSource, NodeOutput, Timer
from dorad.dataflow.settings import LogLevel
from dorad.dataflow.sources import parse_source
from tests.dataflow.reading import unhurried


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("cam/image", NodeOutput("cam", "image")),
        ("cam/op/image", NodeOutput("cam", "op/image")),
        ("a.b-c_1/x", NodeOutput("a.b-c_1", "x")),
        ("dora/timer/secs/2", Timer(2_000_000_000)),
        ("dora/timer/millis/100", Timer(100_000_000)),
        ("dora/timer/micros/5", Timer(5_000)),
        ("dora/timer/nanos/7", Timer(7)),
        ("dora/timer/secs/+5", Timer(5_000_000_000)),
        ("dora/timer/hz/30", Timer(33_333_333)),
        ("dora/timer/hz/0.5", Timer(2_000_000_000)),
        ("dora/timer/hz/.5", Timer(2_000_000_000)),
        ("dora/timer/hz/1e3", Timer(1_000_000)),
        ("dora/logs", LogSource()),
        ("dora/logs/", LogSource()),
        ("dora/logs/warn", LogSource(LogLevel.WARN)),
        ("dora/logs/INFO", LogSource(LogLevel.INFO)),
        ("dora/logs/stdout/cam", LogSource(LogLevel.STDOUT, "cam")),
    ],
)
def test_sources(text: str, source: object) -> None:
    found = parse_source(text)
    assert found == source
    assert found.text == text


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("cam", "`cam` is not a source", "write `node/output` or `dora/timer/millis/100`"),
        ("", "`` is not a source", "write `node/output`"),
        ("cam/", "an input or output id cannot be empty", None),
        ("/x", "a node id cannot be empty", None),
        ("a//b", "the id `/b` has an empty part", None),
        (" a/b", "` ` is not allowed in the node id ` a`", "letters"),
        ("dora/tick", "`dora/tick` does not exist", "there are `dora/timer` and `dora/logs`"),
        ("dora/timr/secs/1", "`dora/timr` does not exist", "did you mean `timer`?"),
        ("dora/timer", "`dora/timer` is not a timer", "write `dora/timer/millis/100`"),
        ("dora/timer/secs", "is not a timer", None),
        ("dora/timer/secs/1/x", "is not a timer", None),
        ("dora/timer/milis/1", "unknown timer unit `milis`", "did you mean `millis`?"),
        ("dora/timer/ms/1", "unknown timer unit `ms`", "did you mean `millis`?"),
        ("dora/timer/seconds/1", "unknown timer unit `seconds`", "did you mean `secs`?"),
        ("dora/timer/Hz/1", "unknown timer unit `Hz`", "did you mean `hz`?"),
        ("dora/timer/days/1", "unknown timer unit `days`", "known: secs, millis"),
        ("dora/timer/secs/0", "a timer needs an interval above 0", None),
        ("dora/timer/secs/-1", "`-1` is not a whole number above 0", "a number of secs"),
        ("dora/timer/secs/1.5", "`1.5` is not a whole number", "write `dora/timer/millis/1500`"),
        ("dora/timer/secs/ 5", "is not a whole number", None),
        ("dora/timer/secs/", "is not a whole number", None),
        ("dora/timer/secs/x", "is not a whole number", None),
        ("dora/timer/secs/٣", "is not a whole number", None),
        ("dora/timer/secs/9223372037", "longer than 292 years", None),
        ("dora/timer/millis/99999999999999999999", "longer than 292 years", None),
        ("dora/timer/nanos/" + "9" * 5000, "is not a whole number", None),
        ("dora/timer/hz/0", "`0` is not a rate above 0", "write `dora/timer/hz/30`"),
        ("dora/timer/hz/-1", "is not a rate above 0", None),
        ("dora/timer/hz/inf", "is not a rate above 0", None),
        ("dora/timer/hz/nan", "is not a rate above 0", None),
        ("dora/timer/hz/1_0", "is not a rate above 0", None),
        ("dora/timer/hz/1e10", "faster than one tick per nanosecond", None),
        ("dora/timer/hz/1e-12", "less than once in 292 years", None),
        ("dora/timer/hz/1e-320", "less than once in 292 years", None),
        ("dora/logs/warning", "unknown log level `warning`", "did you mean `warn`?"),
        ("dora/logs/x", "unknown log level `x`", "known: error, warn, info, debug, trace"),
        ("dora/logs/info/a/b", "is not a log source", "write `dora/logs/info/node`"),
        ("dora/logs/info/.a", "starts with a dot", None),
    ],
)
def test_not_sources(text: str, message: str, hint: str | None) -> None:
    with pytest.raises(TextError) as caught:
        parse_source(text)
    assert message in caught.value.message
    assert hint is None or (caught.value.hint or "").startswith(hint)


@unhurried
@given(st.integers(1, 2**63 - 1))
def test_a_timer_prints_as_a_timer_of_the_same_interval(interval: int) -> None:
    assert parse_source(str(Timer(interval))) == Timer(interval)


@unhurried
@given(st.sampled_from([None, *LogLevel]), st.sampled_from([None, "a", "b.c"]))
def test_a_log_source_prints_as_itself(level: LogLevel | None, node: str | None) -> None:
    source = LogSource(level, node if level else None)
    assert parse_source(str(source)) == source


@unhurried
@given(st.text())
def test_any_text_is_a_source_or_refused(text: str) -> None:
    for candidate in (text, f"dora/timer/{text}", f"dora/timer/hz/{text}", f"dora/logs/{text}"):
        try:
            source = parse_source(candidate)
        except TextError:
            continue
        assert source.text == candidate
        if isinstance(source, Timer):
            assert 0 < source.interval_ns < 2**63
