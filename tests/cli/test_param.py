"""`dora param`."""

import json

import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from tests.cli.fakedaemon import UUID
from tests.harness.commands import fails, succeeds

SPEED = m.Param(
    key="speed", value=0.5, declared=True, type="float", default=1.0, minimum=0, maximum=2
)
MODE = m.Param(key="mode", value="slow", declared=True, default="slow", choices=["slow", "fast"])
EXTRA = m.Param(key="extra", value=[1, None])


@pytest.fixture
def params(daemon):
    daemon.answers["param.list"] = m.ParamList(params=[SPEED, MODE, EXTRA])
    return daemon


def test_the_list_shows_values_and_allowed_ranges(params):
    assert params.dora("param", "list", "arm").stdout.splitlines() == [
        "Key    Value      Type   Default  Allowed        Description",
        "speed  0.5        float  1.0      0..2",
        'mode   "slow"            "slow"   "slow" "fast"',
        "extra  [1, null]",
    ]
    assert params.asked("param.list") == [m.NodeRef(node="arm", dataflow=UUID)]


def test_as_json_it_is_one_object_of_values(params):
    result = params.dora("param", "list", "arm", "-d", "demo", "--format", "json")
    assert json.loads(result.stdout) == {"speed": 0.5, "mode": "slow", "extra": [1, None]}


def test_get_prints_json(daemon):
    daemon.answers["param.get"] = MODE
    assert daemon.dora("param", "get", "arm", "mode").stdout == '"slow"\n'


def test_getting_an_unknown_key_is_an_error(daemon):
    daemon.answers["param.get"] = ControlError("not-found", "node arm has no parameter 'x'")
    result = daemon.dora("param", "get", "arm", "x")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "error: node arm has no parameter 'x'\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("-3", -3), ("-0.5", -0.5), ('"x"', "x"), ("[1, 2]", [1, 2]), ("null", None)],
)
def test_set_takes_any_json(daemon, text, value):
    daemon.answers["param.set"] = lambda params: m.Param(key=params.key, value=params.value)
    out = succeeds(daemon.dora("param", "set", "arm", "speed", text))
    assert out == f"set `speed` = {json.dumps(value)} on node `arm`\n"
    (asked,) = daemon.asked("param.set")
    assert asked == m.ParamSet(node="arm", key="speed", value=value, dataflow=UUID)


def test_set_reports_when_the_node_could_not_be_notified(daemon):
    daemon.answers["param.set"] = m.Param(key="speed", value=3, delivered=False)
    result = daemon.dora("param", "set", "arm", "speed", "3")
    assert result.returncode == 0
    assert result.stderr.startswith("note: node arm is not connected")


def test_a_text_without_quotes_is_a_usage_error_that_shows_them(daemon):
    fails(daemon.dora("param", "set", "arm", "mode", "fast"), 2, "'\"fast\"'")
    assert daemon.calls == []


def test_a_value_out_of_range_is_the_daemons_error(daemon):
    daemon.answers["param.set"] = ControlError("refused", "speed is at most 2", "give 0..2")
    result = daemon.dora("param", "set", "arm", "speed", "3")
    assert result.returncode == 1
    assert result.stderr == "error: speed is at most 2 (give 0..2)\n"


def test_delete(daemon):
    result = daemon.dora("param", "delete", "arm", "speed", "-d", "demo")
    assert result.stdout == "deleted `speed` from node `arm`\n"
    assert daemon.asked("param.delete") == [m.ParamRef(node="arm", key="speed", dataflow="demo")]


@pytest.mark.parametrize(
    "text", ["fast", "", "NaN", "-Infinity", "[1", '"\\ud800"', "[" * 100_000, "1 2"]
)
def test_invalid_json_is_a_usage_error(daemon, text):
    result = daemon.dora("param", "set", "arm", "speed", text)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: VALUE is not JSON: ")
    assert result.stderr.count("\n") == 1
