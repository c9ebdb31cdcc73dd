"""One dataflow over several robots: how it starts, stops, boots, and outlives agents."""

import json

from dorad.dataflow.model import LINK
from hwtests.fleet.enrolled import CLUSTER, EnrolledFleet
from hwtests.fleet.flows import FLOW_FILE, Flow
from hwtests.robots.shell import wait_until


def test_one_command_starts_a_dataflow_over_two_robots_and_one_stops_it(
    robots: EnrolledFleet,
) -> None:
    flow = Flow("first")
    robots.start(flow)
    listed = robots.dora("node", "list")
    assert "arm1" in listed
    assert "arm2" in listed
    assert {machine: set(nodes) for machine, nodes in robots.pids(flow).items()} == {
        "arm1": {"count", LINK},
        "arm2": {"check1", LINK},
        "arm3": set(),
    }
    robots.dora("stop", "first")
    for robot in (robots.arm1, robots.arm2):
        assert robot.sh("systemctl list-units --no-legend 'dorad-*-count*' 'dorad-*-check*'") == ""


def test_explain_says_where_nodes_run_before_they_do(robots: EnrolledFleet) -> None:
    flow = Flow("explained", sinks=("arm3", "nowhere"))
    robots.server.write(FLOW_FILE, flow.text)
    explained = robots.attempt("explain", FLOW_FILE, "--cluster", CLUSTER)
    assert explained.returncode == 1
    assert "nowhere" in explained.stderr
    good = Flow("explained", sinks=("arm3",))
    robots.server.write(FLOW_FILE, good.text)
    words = ("explain", FLOW_FILE, "--cluster", CLUSTER)
    found = json.loads(robots.dorafleet(*words, "--json"))
    planned = {each["node"]: each["machine"] for each in found["nodes"]}
    table = robots.dorafleet(*words, "check1")
    print(table)
    rules = {line.split()[0]: line.split()[1] for line in table.splitlines()[1:]}
    assert rules == {"arm1": "machine", "arm2": "machine", "arm3": "chosen"}
    with robots.running(good):
        pids = robots.pids(good)
        assert all(node in pids[machine] for node, machine in planned.items())


def test_an_agent_may_be_killed_and_nodes_notice_nothing(robots: EnrolledFleet) -> None:
    flow = Flow("agents", policy="backpressure")
    with robots.running(flow):
        before = robots.pids(flow)
        for robot in (robots.arm1, robots.arm2):
            robot.exec("systemctl", "kill", "--signal=KILL", "dorad-agent")
        robots.flows_on(flow)
        robots.wait_connected()
        assert robots.pids(flow) == before
        assert robots.report(flow).missing == 0


def test_a_robot_that_boots_without_a_network_starts_its_share(robots: EnrolledFleet) -> None:
    flow = Flow("boot")
    with robots.running(flow):
        robots.bed.network.cut(1)
        try:
            robots.arm1.reboot()
            wait_until(lambda: "count" in robots.pids(flow)["arm1"], "its share runs", timeout=60)
        finally:
            robots.bed.network.repair(1)
        robots.flows_on(flow, within=30)
        robots.wait_connected()
        assert robots.report(flow).restarts == 1
