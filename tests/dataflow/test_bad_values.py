"""No entry is given twice, and no number is out of its bounds, in silence: a dataflow file.

The samples have each key that has a number or a list. The places come from them.
"""

from __future__ import annotations

import re

import pytest

from dorad.dataflow.errors import DataflowError, Problem
from tests.dataflow.reading import read
from tests.harness.badvalues import Change, asked, changes, given

SAMPLE = """
health_check_interval: 2
strict_types: false
exit_when_nodes_finish: true
safe_to_update: ./idle.sh
env: {MODE: fast}
debug: {enable_debug_inspection: true}
deploy:
  machine: hall
  labels: {zone: hall}
  working_dir: /srv
  distribute: local
  needs: {cpu: 2, memory: 1GB, gpu: 1, devices: [/dev/video0]}
  avoid: {machines: [base], nodes: [b]}
  failover: true
type_rules:
  - {from: my/v1/A, to: my/v1/B}
types:
  my/v1/A:
    arrow: Struct
    description: one
    fields:
      - {name: x, type: Float32, nullable: false, description: metres}
    params:
      - {name: unit, default: m, description: of x}
    metadata:
      - {key: frame, type: Utf8, required: true, description: of x}
  my/v1/B: {arrow: Float32}
record:
  folder: out
  topics: [a/image]
  exclude: [b/joints]
  keep: 60s
  keep_incidents: 30d
  max_incidents_size: 2GB
  max_size: 1GB
  min_free: 1GB
  compression: zstd
  queue_size: 10
  user: ann
nodes:
  - id: a
    name: camera
    description: sees
    path: a.py
    args: --fast
    build: pip install x
    env: {LEVEL: high}
    params:
      gain: {type: int, default: 3, min: 1, max: 9, description: of light}
      mode: {type: string, default: fast, choices: [fast, slow]}
    inputs:
      tick: dora/timer/millis/20
      left: {source: b/joints, queue_size: 5, input_timeout: 3, queue_policy: drop_oldest}
      right: {source: b/other, max_rate_hz: 30, latched: true}
      one: b/one
      two: b/two
    sync:
      - {name: both, inputs: [one, two], tolerance_ms: 20}
    outputs: [image, raw]
    output_types: {image: my/v1/A}
    input_types: {left: my/v1/B}
    output_framing: {raw: raw}
    output_metadata: {image: [frame]}
    output_rates: {image: 25}
    cpu_affinity: [1, 2]
    realtime: {policy: fifo, priority: 30, lock_memory: true, deadline_ms: 20}
    resources:
      memory_max: 2GB
      memory_high: 1GB
      memory_swap_max: 1GB
      cpu_quota: 50%
      cpu_weight: 200
      io_weight: 300
      tasks_max: 40
    user: ann
    groups: [video]
    secrets: [token]
    spin_us: 50
    shared_memory_pool_size: 8MB
    restart_policy: always
    max_restarts: 3
    restart_delay: 1
    max_restart_delay: 5
    restart_window: 60
    health_check_timeout: 5
    startup_timeout: 20
    finish_grace_secs: 30
    send_stdout_as: raw
    min_log_level: info
    max_log_size: 10MB
    max_rotated_files: 4
    deploy:
      machine: arm
      labels: {zone: hall}
      working_dir: /srv
      distribute: local
      needs: {cpu: 2, memory: 1GB, gpu: 1, devices: [/dev/video0]}
      avoid: {machines: [base], nodes: [b]}
      failover: true
  - id: b
    outputs: [joints, other, one, two]
    path: https://x.example/b
    path_sha256: abcdefabcdefabcdefabcdefabcdefabcdefabcdefabcdefabcdefabcdefabcd
  - id: c
    operators:
      - id: op
        name: one
        description: two
        python: {source: op.py, conda_env: base}
        inputs:
          left: {source: b/joints, queue_size: 5}
        outputs: [out]
        max_log_size: 10MB
        max_rotated_files: 4
        output_rates: {out: 25}
"""
ROS2 = """
nodes:
  - id: r
    outputs: [pose]
    ros2:
      topics:
        - topic: /pose
          message_type: geometry_msgs/Pose
          direction: subscribe
          output: pose
          qos: {keep_last: 5}
      qos:
        reliable: true
        durability: volatile
        liveliness: automatic
        lease_duration: 2
        max_blocking_time: 1
        keep_last: 10
        keep_all: false
      setup: /opt/ros/setup.sh
      namespace: /arm
      node_name: bridge
      domain_id: 7
      use_sim_time: true
      transport: {kind: zenoh, compatibility: humble, config_uri: /etc/z.json5}
  - id: d
    inputs:
      tick: dora/timer/millis/20
    path: d.py
    realtime: {policy: deadline, deadline_ms: 20, runtime_ms: 5}
"""
COUNTS_AS_ONE = "counts as 1, as in dora 1.x (docs/guide/dataflow-yaml.md)"
MEANT = {
    ("record.min_free", "zero"): "the recording ends when the disk is full",
    ("nodes[].params.*.min", "zero"): "a bound of the user's own",
    ("nodes[].params.*.min", "negative"): "a bound of the user's own",
    ("nodes[].inputs.*.queue_size", "zero"): COUNTS_AS_ONE,
    ("nodes[].operators[].inputs.*.queue_size", "zero"): COUNTS_AS_ONE,
    ("nodes[].sync[].tolerance_ms", "zero"): "messages that were sent at the same time",
    ("nodes[].output_rates.image", "zero"): "may be silent (docs/guide/dataflow-yaml.md)",
    ("nodes[].operators[].output_rates.out", "zero"): "may be silent",
    ("nodes[].cpu_affinity[]", "zero"): "the first core",
    ("nodes[].resources.memory_swap_max", "zero"): "no swap",
    ("nodes[].spin_us", "zero"): "does not spin",
    ("nodes[].shared_memory_pool_size", "zero"): "keeps nothing (docs/guide/dataflow-yaml.md)",
    ("nodes[].max_restarts", "zero"): "no limit (docs/guide/fault-tolerance.md)",
    ("nodes[].restart_delay", "zero"): "at once (docs/guide/fault-tolerance.md)",
    ("nodes[].max_restart_delay", "zero"): "at once",
    ("nodes[].finish_grace_secs", "zero"): "no grace",
    **{
        (f"{owner}deploy.needs.{key}", "zero"): "needs none"
        for owner in ("", "nodes[].")
        for key in ("cpu", "memory", "gpu")
    },
    ("nodes[].ros2.qos.max_blocking_time", "zero"): "has no effect (docs/guide/ros2.md)",
    ("nodes[].ros2.domain_id", "zero"): "the default domain of ROS 2",
}
"""What passes, and what it means."""
TEXTS = re.compile(
    r"nodes\[\]\.(git|branch|tag|rev|hub|module|operator|shared-library|wasm|pattern|input_patterns"
    r"|output_patterns|send_logs_as|ros2\.(\w+_type|role|direction|topics\[\]\.input))|record\.split"
)
"""Texts that no sample has, because they exclude others or need another node."""


def general(place: str) -> str:
    """The place with `*` for a name that the user chooses."""
    return re.sub(r"(inputs|params|^types)\.(?:my/v1/)?\w+", r"\1.*", place)


def reader(place: str) -> str:
    """The place, where the same reader reads several the first of them."""
    place = re.sub(r"types\.my/v1/\w+", "types.*", place)
    return general(place).replace("operators[].", "").replace("topics[].qos", "qos")


def found(text: str) -> tuple[Problem, ...]:
    try:
        return read(text).warnings
    except DataflowError as error:
        return error.problems


ALL = [*changes(SAMPLE), *changes(ROS2)]


def test_the_samples_are_valid_and_have_each_key_that_the_readers_know() -> None:
    with asked() as keys:
        assert [*found(SAMPLE), *found(ROS2)] == []
    known = {reader(key) for names in keys.values() for key in names}
    missing = known - {reader(key) for key in given(SAMPLE) | given(ROS2)}
    assert [key for key in sorted(missing) if not TEXTS.fullmatch(key)] == []


@pytest.mark.parametrize("change", ALL, ids=lambda change: f"{change.place} {change.what}")
def test_nothing_passes_without_meaning_what_it_says(change: Change) -> None:
    here = [problem for problem in found(change.text) if problem.line in change.lines]
    passes = (general(change.place), change.what) in MEANT
    assert bool(here) is not passes, [str(problem) for problem in found(change.text)]
    assert all(problem.column for problem in here)


def test_each_exception_is_still_one() -> None:
    assert MEANT.keys() - {(general(change.place), change.what) for change in ALL} == set()
