"""Alerts of robots that run a dataflow without a release: real daemons, agents and a link."""

import json

import pytest

from tests.fleet.tworobots import TwoRobots
from tests.harness.daemon import emptied
from tests.harness.flows import SOURCE, write_flow

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

NOISY = """
    import sys
    from dora import Node

    for event in Node():
        if event["type"] == "STOP":
            break
        for number in range(3):
            print(f"ERROR no grip {number}", file=sys.stderr, flush=True)
"""


@pytest.fixture
def robots(site, stack, tmp_path, daemons):
    for each in daemons:
        stack.enter_context(emptied(each))
    return TwoRobots(site, stack, tmp_path, daemons)


def alerts(robots, *options):
    words = ("--coordinator-addr", "127.0.0.1", "--coordinator-port", str(robots.site.port))
    code, out, err = robots.site.run("alerts", "--json", *words, *options)
    assert code == 0, err
    return {each["cause"]: each for each in json.loads(out)}


def test_what_is_wrong_with_a_running_dataflow_is_an_alert_with_its_cause_and_the_next_step(robots):
    nodes = [
        {
            "id": "source",
            "path": "source.py",
            "inputs": {"tick": "dora/timer/hz/10"},
            "outputs": ["number"],
            "output_rates": {"number": 25},
            "deploy": {"machine": "arm1"},
        },
        {
            "id": "noisy",
            "path": "noisy.py",
            "inputs": {"number": {"source": "source/number", "queue_size": 100}},
            "deploy": {"machine": "arm2"},
        },
    ]
    flow = write_flow(robots.folder / "flow", nodes, source=SOURCE, noisy=NOISY)
    result = robots.dora("start", str(flow), "--name", "demo", "--detach")
    assert result.returncode == 0, result.stderr
    robots.until(lambda: alerts(robots).keys() >= {"output-slow", "log-flood"})
    open_ = alerts(robots)
    assert open_.keys() == {"output-slow", "log-flood"}
    slow, flood = open_["output-slow"], open_["log-flood"]
    assert (slow["robots"], slow["node"]) == (["arm1"], "source")
    assert slow["text"].endswith("/s, below 25/s")
    assert slow["hint"].startswith("`dora node info source -d arm1/demo`")
    assert (flood["robots"], flood["node"]) == (["arm2"], "noisy")
    assert flood["text"].endswith(" errors/s")
    assert flood["hint"].startswith("mend what `dora logs arm2/demo noisy` shows")
    assert robots.dora("stop", "demo").returncode == 0
    robots.until(lambda: not alerts(robots))
    assert alerts(robots, "--past").keys() >= {"output-slow", "log-flood"}
