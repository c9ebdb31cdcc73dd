"""The whole dataflow of a replay, in each way to replay it."""

from copy import deepcopy

import pytest
import yaml

from dorad.dataflow.model import RECORDER
from dorad.record.replay.plan import (
    CHECKED_QUEUE,
    MIN_QUEUE,
    PROGRAM,
    REPLAYER,
    STEPPED_QUEUE,
    ReplayError,
    ReplayPlan,
    choose_replayed,
    rewire,
)

FLOW = yaml.safe_load(f"""
name: pick
nodes:
  - id: cam
    path: cam.py
    inputs: {{tick: dora/timer/hz/10}}
    outputs: [image, depth]
    output_types: {{image: Image}}
  - id: det
    path: det.py
    git: https://example.org/det
    build: make
    hub: det
    inputs:
      image: cam/image
      queued: {{source: cam/image, queue_size: 50}}
      small: {{source: cam/depth, queue_size: 2}}
      state: {{source: arm/state}}
      tick: dora/timer/millis/20
      own: det/boxes
      log: {{source: dora/logs/info}}
    outputs: [boxes]
    output_types: {{boxes: Boxes}}
  - id: arm
    operator:
      {{id: o, python: arm.py, inputs: {{boxes: det/boxes}}, outputs: [state],
       output_types: {{state: State}}}}
  - {{id: rec, path: {RECORDER}, inputs: {{i: cam/image}}}}
  - {{id: __dora_record_1, path: x}}
""")
RECORDED = ("cam/image", "cam/depth", "det/boxes", "det/old", "arm/o/state")


def waits(source, size=MIN_QUEUE):
    return {"source": source, "queue_size": size, "queue_policy": "backpressure"}


KEPT = {
    "state": {"source": "arm/state"},
    "tick": "dora/timer/millis/20",
    "own": "det/boxes",
    "log": {"source": "dora/logs/info"},
}
"""Inputs that are as they were."""
QUEUED = {
    "image": waits(f"{REPLAYER}/cam/image"),
    "queued": {"source": f"{REPLAYER}/cam/image", "queue_size": 50},
    "small": {"source": f"{REPLAYER}/cam/depth", "queue_size": 2},
}
LOSSLESS = KEPT | {
    "image": waits(f"{REPLAYER}/cam/image"),
    "queued": waits(f"{REPLAYER}/cam/image", 50),
    "small": waits(f"{REPLAYER}/cam/depth"),
}


def stepped(source, **more):
    return {"source": source, "queue_size": STEPPED_QUEUE, **more}


STEPPED = {
    "image": stepped(f"{REPLAYER}/cam/image"),
    "queued": stepped(f"{REPLAYER}/cam/image"),
    "small": stepped(f"{REPLAYER}/cam/depth"),
    "state": stepped("arm/o/state"),
    "own": stepped("det/boxes"),
    "log": KEPT["log"],
}
TICK = "dora/tick/det/tick"


@pytest.mark.parametrize(
    ("options", "inputs", "boxes", "replayer", "planned"),
    [
        ({}, QUEUED | KEPT, "det/boxes", {"outputs": ["cam/depth", "cam/image"]}, {}),
        (
            {"checks": True, "topics": ["cam/image"]},
            QUEUED | KEPT,
            "det/boxes",
            {
                "outputs": ["cam/image", "cam/depth"],
                "inputs": {
                    topic: {"source": topic, "queue_size": CHECKED_QUEUE}
                    for topic in ("arm/o/state", "det/boxes")
                },
            },
            {
                "topics": ("cam/image",),
                "silent": ("cam/depth",),
                "checked": ("arm/o/state", "det/boxes"),
                "removed": ("det/old",),
            },
        ),
        (
            {"steps": True},
            STEPPED | {"tick": stepped(f"{REPLAYER}/{TICK}")},
            stepped("det/boxes"),
            {"outputs": ["cam/depth", "cam/image", TICK]},
            {"ticks": {TICK: 20_000_000}},
        ),
        (
            {"lossless": True},
            LOSSLESS,
            "det/boxes",
            {"outputs": ["cam/depth", "cam/image"]},
            {},
        ),
    ],
    ids=["plain", "checks", "steps", "lossless"],
)
def test_the_dataflow_of_a_replay(options, inputs, boxes, replayer, planned):
    before = deepcopy(FLOW)
    flow, plan = rewire(FLOW, RECORDED, ("cam",), programs={"det": "/new.py"}, **options)
    detector = {
        "id": "det", "path": "/new.py", "outputs": ["boxes"], "output_types": {"boxes": "Boxes"},
        "inputs": inputs,
    }  # fmt: skip
    arm = {
        "id": "arm", "operator": {
            "id": "o", "python": "arm.py", "inputs": {"boxes": boxes}, "outputs": ["state"],
            "output_types": {"state": "State"},
        },
    }  # fmt: skip
    sender = {
        "id": REPLAYER, "path": PROGRAM, "spin_us": 0, "output_types": {"cam/image": "Image"},
    }  # fmt: skip
    assert flow == {"name": "pick", "nodes": [detector, arm, sender | replayer]}
    known = {
        "topics": ("cam/depth", "cam/image"), "silent": (), "checked": (), "removed": (),
        "ticks": {}, "endless": ("det", "arm"),
    }  # fmt: skip
    assert plan == ReplayPlan(replayed=("cam",), live=("det", "arm"), **(known | planned))
    assert before == FLOW


def test_bridges_publish_the_recorded_time_in_each_domain():
    def bridged(node, **keys):
        ros2 = {"topic": "/t", "message_type": "std_msgs/Empty", **keys}
        return {"id": node, "ros2": ros2, "outputs": ["t"]}

    flow = {"nodes": [bridged("a", domain_id=3), bridged("b", domain_id=3), bridged("c")]}
    rewired, plan = rewire(flow, ["a/t"], ("a", "b", "c"), programs={}, ros_clock=True)
    first, second, replayer = rewired["nodes"]
    clock = {
        "node_name": "dora_replay_clock",
        "topic": "/clock",
        "message_type": "rosgraph_msgs/Clock",
        "direction": "publish",
    }
    assert (first["ros2"], second["ros2"]) == ({"domain_id": 3, **clock}, clock)
    output = "dora/ros_clock"
    for node in (first, second):
        source = f"{REPLAYER}/{output}"
        assert node["inputs"] == {"clock": {"source": source, "queue_policy": "latest"}}
    assert output in replayer["outputs"]
    assert (plan.live, plan.endless) == ((), ())


def test_what_follows_the_wall_clock_is_left_out_while_stepping_and_what_selects_stays():
    inputs = {
        "fast": {"source": "cam/image", "max_rate_hz": 5, "queue_policy": "backpressure"},
        "guarded": {"source": "cam/image", "input_timeout": 2, "queue_size": 5000},
    }
    node = {"id": "det", "path": "d.py", "inputs": inputs}
    limits = {"restart_policy": "always", "max_restarts": 3, "health_check_timeout": 5}
    flow = {"nodes": [{"id": "cam", "path": "c.py", "outputs": ["image"]}, node | limits]}
    changed, plan = rewire(flow, ("cam/image",), ("cam",), programs={}, steps=True)
    source = f"{REPLAYER}/cam/image"
    assert changed["nodes"][0] == node | {
        "inputs": {
            "fast": stepped(source, max_rate_hz=5, queue_policy="backpressure"),
            "guarded": {"source": source, "queue_size": 5000},
        }
    }
    assert plan.endless == ()


def test_nodes_without_a_source_or_on_a_cycle_do_not_end_by_themselves():
    sources = {
        "timed": ["dora/timer/millis/5"],
        "fed": ["cam/image", "dora/timer/millis/5"],
        "behind": ["fed/o", "timed/o"],
        "there": ["cam/image", "back/o"],
        "back": ["there/o"],
        "last": ["fed/o", "cam/image"],
        "alone": [],
    }
    nodes = [
        {
            "id": name,
            "path": "x.py",
            "outputs": ["o"],
            "inputs": {f"i{at}": source for at, source in enumerate(each)},
        }
        for name, each in sources.items()
    ]
    flow = {"nodes": [{"id": "cam", "path": "c.py", "outputs": ["image"]}, *nodes]}
    assert rewire(flow, ("cam/image",), ("cam",), programs={})[1].endless == (
        "timed", "behind", "there", "back", "alone",
    )  # fmt: skip


def test_the_outputs_of_an_operator_are_replayed_under_their_whole_name():
    flow, plan = rewire(FLOW, RECORDED, ("cam", "arm"), programs={})
    (detector, sender) = flow["nodes"]
    original = FLOW["nodes"][1]
    state = {"state": waits(f"{REPLAYER}/arm/o/state")}
    assert detector == original | {"inputs": QUEUED | KEPT | state}
    assert sender["outputs"] == ["arm/o/state", "cam/depth", "cam/image"]
    assert sender["output_types"] == {"arm/o/state": "State", "cam/image": "Image"}
    assert (plan.live, plan.topics) == (("det",), ("arm/o/state", "cam/depth", "cam/image"))


def test_the_nodes_of_a_recorded_dataflow_are_those_with_an_id():
    flow = {"nodes": [{"id": "a", "outputs": ["x"]}, {"path": "b"}, "c"]}
    assert choose_replayed(flow, ["a/x"], wanted=(), live=(), sources_only=False) == ("a",)
    for wrong in ({}, {"nodes": None}, {"nodes": {"id": "a"}}):
        with pytest.raises(ReplayError, match="the recorded dataflow has no nodes") as raised:
            choose_replayed(wrong, ["a/x"], wanted=(), live=(), sources_only=False)
        assert (raised.value.code, raised.value.hint) == ("refused", None)


def chosen(*, sources_only=False, **names):
    asked = {"wanted": (), "live": ()} | names
    return choose_replayed(FLOW, RECORDED, **asked, sources_only=sources_only)


def test_what_is_replayed_is_what_is_named_or_was_recorded_without_what_shall_run():
    assert chosen() == ("cam", "det", "arm")
    assert chosen(sources_only=True) == ("cam",)
    # Who names live nodes has chosen already.
    assert chosen(sources_only=True, live=("det",)) == ("cam", "arm")
    assert chosen(wanted=("arm", "cam")) == ("cam", "arm")
    assert chosen(wanted=("arm", "cam"), live=("cam",)) == ("arm",)
    assert chosen(wanted=("arm",), sources_only=True) == ("arm",)


@pytest.mark.parametrize(
    ("names", "text", "hint"),
    [
        ({"wanted": ("cm",)}, "no node 'cm'", "did you mean `cam`?"),
        ({"live": ("lidar",)}, "no node 'lidar'", "it has: cam, det, arm, rec, __dora_record_1"),
        ({"wanted": ("rec",)}, "has no message of node 'rec'", None),
        ({"wanted": ("cam",), "live": ("cam",)}, "has messages of arm, cam, det; the dataflow has",
         "name the replayed nodes with --replace, or another dataflow with --dataflow"),
    ],
)  # fmt: skip
def test_what_cannot_be_replayed_is_named_with_what_can(names, text, hint):
    with pytest.raises(ReplayError, match=text) as raised:
        chosen(**names)
    assert raised.value.hint == hint
