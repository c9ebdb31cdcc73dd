"""Filtering with --log-level and --log-filter."""

import pytest

from dorad.control.filters import parse
from dorad.logrecord import LogRecord, filter_cells
from dorad.logs.filter import LEVELS, LogFilter, parse_filter

OUT = LogRecord(0, "stdout", "n", "x")
ERR = LogRecord(0, "stdout", "n", "x", "stderr")


def shown(level: str) -> set[str]:
    """Return the kinds of lines that pass `--log-level level`."""
    wanted = LogFilter(level)
    kinds = {name: LogRecord(0, name, "n", "x") for name in LEVELS if name != "stdout"}
    kinds |= {"raw stdout": OUT, "raw stderr": ERR}
    return {name for name, record in kinds.items() if wanted.passes(record)}


@pytest.mark.parametrize(
    ("level", "lines"),
    [
        ("error", {"error"}),
        ("warn", {"error", "warn", "raw stderr"}),
        ("info", {"error", "warn", "raw stderr", "info", "raw stdout"}),
        ("debug", {"error", "warn", "raw stderr", "info", "raw stdout", "debug"}),
        ("trace", {"error", "warn", "raw stderr", "info", "raw stdout", "debug", "trace"}),
        ("stdout", {"error", "warn", "raw stderr", "info", "raw stdout", "debug", "trace"}),
    ],
)
def test_a_level_shows_itself_and_more_severe_ones(level: str, lines: set[str]) -> None:
    assert shown(level) == lines


def test_the_level_of_a_line_without_one_has_the_name_that_tables_show() -> None:
    for text in ("level=out", "level=stdout", "level!=info"):
        assert parse(text).matches(filter_cells(OUT, 0.0)), text
    assert not parse("level!=out").matches(filter_cells(OUT, 0.0))
    assert parse("level!=out").matches(filter_cells(LogRecord(0, "info", "n", "x"), 0.0))


def test_without_options_everything_is_shown() -> None:
    assert parse_filter(None, None) == LogFilter("stdout", {})
    assert parse_filter("", "") == LogFilter("stdout", {})


def test_a_node_may_have_its_own_level() -> None:
    wanted = parse_filter("WARN", "cam=debug, arm = error,")
    assert wanted == LogFilter("warn", {"cam": "debug", "arm": "error"})
    debug = {name: LogRecord(0, "debug", name, "x") for name in ("cam", "arm", "other")}
    assert [name for name, record in debug.items() if wanted.passes(record)] == ["cam"]


def test_the_daemons_own_lines_follow_the_general_level() -> None:
    assert not LogFilter("warn", {"n": "trace"}).passes(LogRecord(0, "info", None, "x"))


@pytest.mark.parametrize(
    ("level", "by_node", "message"),
    [
        ("loud", None, "`loud` is not a log level; there are error, warn, info"),
        (None, "cam", "`cam` is not of the form node=level"),
        (None, "=info", "`=info` is not of the form node=level"),
        (None, "cam=", "`` is not a log level"),
    ],
)
def test_a_wrong_option_is_named(level: str | None, by_node: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_filter(level, by_node)
