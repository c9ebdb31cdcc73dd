"""The YAML of the measured dataflows."""

import pytest
import yaml

from hwtests.bench.cases import Plan, flows, quick_plan
from hwtests.bench.descriptor import NODES, flow_yaml

ALL = flows(Plan())


@pytest.mark.parametrize("flow", ALL, ids=lambda flow: flow.measure)
def test_every_dataflow_is_whole(flow, tmp_path):
    nodes = {node["id"]: node for node in yaml.safe_load(flow_yaml(flow, tmp_path))["nodes"]}
    assert all((NODES / node.file).is_file() for node in flow.nodes)
    for node in nodes.values():
        assert node["env"]["BENCH_OUT"] == str(tmp_path / f"{node['id']}.json")
        assert all(isinstance(value, str) for value in node["env"].values())
        for wire in node.get("inputs", {}).values():
            source = wire if isinstance(wire, str) else wire["source"]
            producer, _, output = source.partition("/")
            assert producer == "dora" or output in nodes[producer]["outputs"]


@pytest.mark.parametrize("flow", ALL, ids=lambda flow: flow.measure)
def test_only_flows_that_dora_does_not_run_hold_a_key_it_does_not_know(flow, tmp_path):
    known = {"id", "path", "inputs", "outputs", "env"}
    for node in yaml.safe_load(flow_yaml(flow, tmp_path))["nodes"]:
        assert set(node) <= (known if flow.spin else known | {"spin_us"})
        assert flow.spin or node["spin_us"] == 0


def test_a_queue_is_written_only_where_it_is_set(tmp_path):
    by_measure = {flow.measure: flow for flow in ALL}
    text = flow_yaml(by_measure["burst, backpressure"], tmp_path)
    sender, sink = yaml.safe_load(text)["nodes"]
    assert sink["inputs"]["data"] == {
        "source": "sender/data",
        "queue_size": 1000,
        "queue_policy": "backpressure",
    }
    assert sender["inputs"] == {"ack_0": "sink_0/ack"}


def test_a_quick_run_is_a_subset_of_a_full_run():
    whole = [flow.measure for flow in ALL]
    quick = [flow.measure for flow in flows(quick_plan())]
    assert set(quick) < set(whole)
