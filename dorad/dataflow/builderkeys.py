"""The keys of a dataflow built in Python, for type checkers; the same as in a dataflow file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, Union

if TYPE_CHECKING:
    import os

    from dorad.dataflow.builder import Output

Policy = Literal["drop_oldest", "backpressure", "latest"]
Level = Literal["error", "warn", "info", "debug", "trace", "stdout"]
Pattern = Literal["service-server", "service-client", "action-server", "action-client"]
Env: TypeAlias = Mapping[str, str | int | float | bool | None]


class InputKeys(TypedDict, total=False):
    """The long form of an input."""

    source: str | Output
    queue_size: int
    queue_policy: Policy
    input_timeout: float
    latched: bool
    max_rate_hz: float


class SyncKeys(TypedDict, total=False):
    """Inputs that a node receives together."""

    inputs: Sequence[str]
    tolerance_ms: float
    name: str


class AmountKeys(TypedDict, total=False):
    """How much of a machine a node needs."""

    cpu: float
    memory: int | str
    gpu: int
    devices: Sequence[str]


class AvoidKeys(TypedDict, total=False):
    """Machines and other nodes that a node must not share."""

    machines: Sequence[str]
    nodes: Sequence[str]


class DeployKeys(TypedDict, total=False):
    """The machines that a node may run on."""

    machine: str
    labels: Mapping[str, str]
    working_dir: str
    distribute: Literal["local", "scp", "http"]
    needs: AmountKeys
    avoid: AvoidKeys
    failover: bool


Inputs: TypeAlias = Mapping[str, Union[str, "Output", InputKeys]]


class MoreKeys(TypedDict, total=False):
    """Keys of nodes and operators without a method in dora's builder."""

    input_types: Mapping[str, str]
    output_types: Mapping[str, str]
    output_framing: Mapping[str, Literal["raw", "arrow-ipc"]]
    output_metadata: Mapping[str, Sequence[str]]
    output_rates: Mapping[str, float]
    pattern: Pattern
    send_logs_as: str
    min_log_level: Level
    max_log_size: int | str
    max_rotated_files: int


class NodeKeys(MoreKeys, total=False):
    """The keys of a node besides its `id`."""

    name: str
    description: str
    build: str
    inputs: Inputs
    outputs: Sequence[str]
    send_stdout_as: str
    path: str | os.PathLike[str]
    path_sha256: str
    args: str
    env: Env
    git: str
    branch: str
    tag: str
    rev: str
    hub: str
    module: str | os.PathLike[str]
    ros2: Mapping[str, Any]
    sync: SyncKeys | Sequence[SyncKeys]
    params: Mapping[str, Any]
    cpu_affinity: Sequence[int]
    realtime: Mapping[str, Any]
    resources: Mapping[str, Any]
    user: str
    groups: Sequence[str]
    secrets: Sequence[str]
    spin_us: int
    shared_memory_pool_size: int | str
    restart_policy: Literal["never", "on-failure", "always"]
    max_restarts: int
    restart_delay: float
    max_restart_delay: float
    restart_window: float
    health_check_timeout: float
    startup_timeout: float
    finish_grace_secs: float
    deploy: DeployKeys


class DataflowKeys(TypedDict, total=False):
    """The keys of a dataflow besides its `nodes`."""

    env: Env
    exit_when_nodes_finish: bool
    health_check_interval: float
    safe_to_update: str
    strict_types: bool
    type_rules: Sequence[Mapping[str, str]]
    debug: Mapping[str, bool]
    deploy: DeployKeys
