"""What the live graph shows of a measurement."""

from dorad.control import messages as m
from dorad.dataflow.model import LINK
from dorad.view.figures import MAX_PROBLEMS, figures


def node(name, status="running", **fields):
    base = {"dataflow": "u", "dataflow_name": "demo", "pid": 7, "restarts": 0}
    return m.NodeInfo(node=name, status=status, metrics=m.NodeMetrics(), **{**base, **fields})


def edge(source, target, drop_rate=0.0, **fields):
    counts = dict.fromkeys(("sent", "received", "dropped", "queued", "payload"), 0)
    base = {
        "dataflow": "u",
        "queue_size": 10,
        "rate": 5.0,
        "bandwidth": 0.0,
        "latency": None,
        "jitter": None,
    }
    return m.EdgeStats(
        source=source, target=target, drop_rate=drop_rate, **{**counts, **base, **fields}
    )


def shown(nodes=(), edges=(), **fields):
    return figures(m.Top(at=1.0, window=5.0, nodes=[*nodes], edges=[*edges], **fields), "u")


def test_other_dataflows_and_links_are_left_out():
    got = shown(
        [node("a"), node("b", dataflow="v"), node(LINK)],
        [edge("a/x", "c/x"), edge("a/x", "b/x", dataflow="v"), edge("a/x", f"{LINK}/a/x")],
    )
    assert [each["node"] for each in got["nodes"]] == ["a"]
    assert [each["target"] for each in got["edges"]] == ["c/x"]


def test_what_a_link_delivers_comes_from_the_node_of_the_other_machine():
    (only,) = shown(edges=[edge(f"{LINK}/cam/image", "c/x")])["edges"]
    assert only["source"] == "cam/image"


def test_problems_are_failed_nodes_first_then_those_that_come_back_then_edges():
    got = shown(
        [
            node("ok"),
            node("slow", "degraded", broken_inputs=["image"]),
            node("dead", "failed", last_exit="exit code 3"),
            node("again", "restarting"),
            node("done", "stopped"),
        ],
        [
            edge("ok/x", "slow/x", drop_rate=2.5, dropped=9),
            edge("ok/x", "dead/x", broken=True),
            edge("ok/y", "ok/y", dropped=5),
        ],
    )
    assert [each["text"] for each in got["problems"]] == [
        "dead failed: exit code 3",
        "slow degraded: timed out: image",
        "again restarting",
        "slow/x drops 2.5 messages a second",
        "dead/x has timed out",
    ]
    assert [each["node"] for each in got["problems"]] == ["dead", "slow", "again", "slow", "dead"]


def test_too_many_problems_are_counted_and_long_texts_cut():
    got = shown([node(f"n{i}", "failed", last_error="x" * 9000) for i in range(MAX_PROBLEMS + 3)])
    assert len(got["problems"]) == MAX_PROBLEMS
    assert got["problems_left_out"] == 3
    assert max(len(each["why"]) for each in got["nodes"]) == 2000


def test_machines_that_did_not_answer_are_named():
    assert shown(missing={"arm2": "it is offline"})["missing"] == {"arm2": "it is offline"}
