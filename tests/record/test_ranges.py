"""Options that choose nothing, or would overwrite something, are refused before anything starts."""

import pytest
from click.testing import CliRunner

from dorad.cli.diff import diff
from dorad.cli.record_edit import cut, export
from dorad.cli.replay import replay
from dorad.problems import ProblemError
from tests.record.files import numbers, write


@pytest.fixture
def recording(tmp_path, monkeypatch):
    """A recording of 190 ms."""
    monkeypatch.chdir(tmp_path)
    return write(tmp_path / "a.mcap", numbers(20))


def run(command, *words):
    done = CliRunner().invoke(command, [*map(str, words)])
    if isinstance(done.exception, ProblemError):
        return 1, f"{done.exception}"
    return done.exit_code, done.output


@pytest.mark.parametrize("command", [replay, cut])
@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--start", "100ms", "--end", "50ms"), 2, "--end 50ms is not after --start 100ms"),
        (("--start", "5s"), 1, "no message in this range"),
        (("--end", "2020-01-01"), 1, "no message in this range"),
    ],
)
def test_a_range_without_messages_is_refused(recording, command, words, code, text):
    more = ("-o", "b.mcap") if command is cut else ()
    found, output = run(command, recording, *words, *more)
    assert (found, text in output) == (code, True), output
    assert not (recording.parent / "b.mcap").exists()


@pytest.mark.parametrize("speed", ["inf", "nan", "-1"])
def test_a_speed_is_a_finite_number_of_at_least_zero(recording, speed):
    code, output = run(replay, recording, "--speed", speed)
    assert code == 2, output


def test_an_export_overwrites_nothing(recording, tmp_path):
    assert run(export, recording, "--to", "csv", "-o", "day")[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "day").iterdir()}
    for target in ("day", recording):
        code, output = run(export, recording, "--to", "csv", "-o", target)
        assert (code, "exists already" in output) == (1, True), output
    assert {path: path.read_bytes() for path in (tmp_path / "day").iterdir()} == before
    (tmp_path / "empty").mkdir()
    assert run(export, recording, "--to", "csv", "-o", "empty")[0] == 0


def test_a_comparison_of_nothing_is_no_success(recording):
    code, output = run(diff, recording, recording, "--ignore", "*")
    assert (code, "nothing to compare" in output) == (1, True), output
    words = (recording, "--live", "worker", "--assert", "--ignore", "worker/*")
    code, output = run(replay, *words)
    assert (code, "nothing to compare" in output) == (1, True), output
