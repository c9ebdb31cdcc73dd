"""The kind of a node, and the keys that each kind allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.dataflow.model import NodeKind
from dorad.dataflow.ports import LOG_KEYS, TYPE_KEYS

if TYPE_CHECKING:
    from dorad.dataflow.fields import Fields

KIND_KEYS = ("path", "operators", "operator", "ros2", "module", "hub")
"""The keys that decide the kind; a node has exactly one of them."""

RESTART_KEYS = (
    "restart_policy",
    "max_restarts",
    "restart_delay",
    "max_restart_delay",
    "restart_window",
    "health_check_timeout",
    "startup_timeout",
    "finish_grace_secs",
)
POOL_KEY = "shared_memory_pool_size"
_COMMON = ("id", "name", "description", "env", "deploy", *KIND_KEYS)
_PROCESS = ("cpu_affinity", "realtime", "resources", "spin_us", "user", "groups", "secrets")
_RUNNING = ("inputs", "sync", "outputs", "args", POOL_KEY, *TYPE_KEYS)
_SOURCE = ("build", "git", "branch", "tag", "rev", "path_sha256")
_PATH = frozenset((*_COMMON, *_PROCESS, *_RUNNING, *_SOURCE, *RESTART_KEYS, *LOG_KEYS, "params"))
_ALLOWED = {
    NodeKind.PATH: _PATH,
    NodeKind.DYNAMIC: _PATH,
    NodeKind.SHELL: _PATH,
    NodeKind.URL: _PATH,
    NodeKind.HUB: _PATH - {"build", "git", "branch", "tag", "rev", "path_sha256"},
    NodeKind.OPERATORS: frozenset((*_COMMON, *_PROCESS, *RESTART_KEYS, *LOG_KEYS, POOL_KEY)),
    NodeKind.ROS2: frozenset((*_COMMON, *_PROCESS, *_RUNNING, *RESTART_KEYS, *LOG_KEYS)),
    NodeKind.MODULE: frozenset((*_COMMON, "inputs", "params", "build")),
}
_IN_OPERATOR = frozenset(("inputs", "outputs", "build", *TYPE_KEYS))
OPERATOR_NODE_ONLY = _ALLOWED[NodeKind.OPERATORS] - {*KIND_KEYS, *LOG_KEYS, "id"}
"""Keys that a node with operators may have, but not an operator itself."""
_DEFAULTS = {"restart_policy": "never", "max_restarts": 0}

_PROGRAM = "name the program with `path`"
_WITH_ARGUMENTS = f"{_PROGRAM}, its arguments with `args`"
_PROGRAM_WORDS = {
    "node": _PROGRAM,
    "file": _PROGRAM,
    "program": _PROGRAM,
    "script": _PROGRAM,
    "source": _PROGRAM,
    "cmd": _WITH_ARGUMENTS,
    "command": _WITH_ARGUMENTS,
    "exec": _WITH_ARGUMENTS,
    "executable": _WITH_ARGUMENTS,
    "run": _WITH_ARGUMENTS,
}
"""Hints for words of other systems in place of `path`."""
_OF_INPUT = "it is an option of an input, beside its `source`"
INSTEAD = {
    "custom": "write its `source` as `path`, and its other keys directly in the node",
    **_PROGRAM_WORDS,
    "_unstable_deploy": "write `deploy`",
    "queue_size": _OF_INPUT,
    "queue_policy": _OF_INPUT,
    "input_timeout": _OF_INPUT,
    "latched": _OF_INPUT,
    "max_rate_hz": _OF_INPUT,
}
"""Hints for keys of older versions and for keys that belong elsewhere."""


def kind_of(node: Fields) -> NodeKind:
    """Return the kind of a node by its keys; report keys that exclude each other."""
    kind_keys = [key for key in KIND_KEYS if node.has(key)]
    kind_keys.sort(key=lambda key: (node.name_of(key).name_line, node.name_of(key).name_column))
    for extra in kind_keys[1:]:
        node.problems.error_in_name(
            node.name_of(extra),
            f"`{kind_keys[0]}` and `{extra}` exclude each other",
            f"a node has one of {', '.join(KIND_KEYS)}",
        )
    match kind_keys[0] if kind_keys else "path":
        case "operator" | "operators":
            return NodeKind.OPERATORS
        case "path":
            return _kind_of_path(node.name_of("path").text)
        case kind:
            return NodeKind(kind)


def _kind_of_path(path: str) -> NodeKind:
    if path in (NodeKind.DYNAMIC, NodeKind.SHELL):
        return NodeKind(path)
    return NodeKind.URL if path.startswith(("http://", "https://")) else NodeKind.PATH


def declares(kind: NodeKind) -> bool:
    """Return True if `params` of such a node declares parameters; a module's are texts."""
    return kind is not NodeKind.MODULE and "params" in _ALLOWED[kind]


def check_keys(node: Fields, kind: NodeKind) -> None:
    """Report keys that this kind of node does not allow, unless they have their default value."""
    data = node.owner.data
    allowed = _ALLOWED[kind]
    for key, value in (data if isinstance(data, dict) else {}).items():
        if key in allowed or key not in ALL_KEYS or value.data in (None, [], {}):
            continue
        if key in _DEFAULTS and value.data == _DEFAULTS[key]:
            continue
        hint = None
        if kind is NodeKind.OPERATORS and key in _IN_OPERATOR:
            hint = "move it into the operator"
        elif key == "params":
            hint = "only programs and modules have parameters"
        node.problems.error_in_name(value, f"not allowed in a node with `{_kind_key(node)}`", hint)


def check_runnable(node: Fields, misspelt: set[str]) -> None:
    """Report a node without a program, unless its key is probably misspelt."""
    given = any(map(node.has, (*KIND_KEYS, *_PROGRAM_WORDS, "custom")))
    if not given and misspelt.isdisjoint(KIND_KEYS):
        node.problems.error_in_name(
            node.owner, f"has no program: needs one of {', '.join(KIND_KEYS)}"
        )


def not_indented(node: Fields) -> dict[str, str]:
    """Return hints for inputs that stand beside an empty `inputs`, not below it."""
    data = node.owner.data
    if not isinstance(data, dict) or "inputs" not in data or data["inputs"].data is not None:
        return {}
    return {
        name: "an input is indented below `inputs`"
        for name, value in data.items()
        if name not in ALL_KEYS and isinstance(value.data, str) and "/" in value.data
    }


def _kind_key(node: Fields) -> str:
    return next((key for key in KIND_KEYS if node.has(key)), "path")


ALL_KEYS = frozenset().union(*_ALLOWED.values())
