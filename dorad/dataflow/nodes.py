"""Read one entry of `nodes`: from a mapping to a `NodeSpec`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from dorad.dataflow.declare import read_declared, read_module_params
from dorad.dataflow.deploy import read_deploy
from dorad.dataflow.env import read_env
from dorad.dataflow.errors import DataflowError, TextError
from dorad.dataflow.fields import Fields, integer, warn_twice
from dorad.dataflow.ids import check_node_id
from dorad.dataflow.inputs import read_inputs
from dorad.dataflow.kinds import (
    ALL_KEYS,
    INSTEAD,
    check_keys,
    check_runnable,
    declares,
    kind_of,
    not_indented,
)
from dorad.dataflow.model import Input, NodeKind, NodeSpec, Operator, Sync
from dorad.dataflow.plain import plain_tree
from dorad.dataflow.ports import read_build, read_logging, read_outputs, read_types
from dorad.dataflow.problems import Problems, in_order
from dorad.dataflow.secrets import MAX_NODE_SECRETS, check_secret_name
from dorad.dataflow.settings import (
    Git,
    Logging,
    Realtime,
    Resources,
    Restart,
    RestartPolicy,
    Ros2Bridge,
)
from dorad.dataflow.words import no_nul, split_args
from dorad.phrases import shorten

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.dataflow.value import Value

_SHA256 = r"[0-9a-fA-F]{64}"
_HUB = r"([A-Za-z0-9_.-]+/)?[A-Za-z0-9_.-]+@.+"
_GIT = r"(?:https?|ssh|git)://[^\s/-]\S*|file:///\S*|[A-Za-z0-9_][A-Za-z0-9_.-]*@[^\s:/@-][^\s:/@]*:[^\s-]\S*"
_USER = r"[A-Za-z_][A-Za-z0-9_-]{0,31}"
_MAX_CORES = 1 << 16
_MAX_SPIN_US = 1000
_MAX_RESTARTS = 2**32 - 1
_KILLED = "with 0 the node is killed at once"
_NEVER_COUNTED = "with 0 restarts are never counted, so `max_restarts` has no effect"


def read_node(
    value: Value,
    dataflow_env: Mapping[str, str],
    environ: Mapping[str, str] | None,
    problems: Problems,
) -> NodeSpec | None:
    """Return the node as far as it is valid, None if it is not a mapping; report mistakes.

    Without `environ` the texts of `env` count as expanded already.
    """
    if not isinstance(value.data, dict):
        _report_no_mapping(value, problems)
        return None
    name = next(iter(value.data), "")
    if (
        name not in (*ALL_KEYS, *INSTEAD, "<<")
        and len(value.data) == 1
        and isinstance(value.data[name].data, dict)
    ):
        problems.error_in_name(
            value,
            f"`{shorten(name)}` is not a key of a node",
            f"write `- id: {shorten(name)}`, and the keys of the node beside `id`",
        )
        return None
    fields = Fields(value, problems)
    node_id = fields.required_text("id")
    if node_id:
        fields.checked("id", check_node_id, None)
    kind = kind_of(fields)
    inputs, outputs = read_inputs(fields), read_outputs(fields)
    operators = _read_operators(fields)
    own_env = read_env(fields.take("env"), environ, problems)
    path = fields.checked("path", _check_path, None)
    node = NodeSpec(
        id=node_id,
        kind=kind,
        key=value.key,
        name=fields.text("name"),
        description=fields.text("description"),
        path=path,
        path_sha256=_read_sha256(fields, kind),
        args=_read_args(fields, kind),
        env={**dataflow_env, **own_env},
        own_env=own_env,
        build=read_build(fields),
        git=_read_git(fields),
        hub=fields.checked("hub", _check_hub, None),
        inputs=inputs,
        sync=_read_sync(fields, inputs),
        outputs=outputs,
        types=read_types(fields, inputs, outputs),
        cpu_affinity=_read_cores(fields),
        realtime=_read_realtime(fields, inputs),
        resources=_read_resources(fields),
        user=fields.checked("user", _check_user, None),
        groups=fields.texts("groups", _check_group),
        secrets=_read_secrets(fields),
        spin_us=fields.integer("spin_us", maximum=_MAX_SPIN_US),
        shared_memory_pool_size=fields.size("shared_memory_pool_size"),
        restart=_read_restart(fields),
        health_check_timeout=fields.seconds("health_check_timeout", if_zero=_KILLED),
        startup_timeout=fields.seconds("startup_timeout", if_zero=_KILLED),
        finish_grace_secs=fields.seconds("finish_grace_secs"),
        logging=_read_logging(fields, operators) if operators else read_logging(fields, outputs),
        deploy=read_deploy(fields),
        operators=operators,
        single_operator=fields.has("operator"),
        module=fields.checked("module", _check_module, None),
        params=read_module_params(fields) if kind is NodeKind.MODULE else {},
        declared=read_declared(fields) if declares(kind) else {},
        ros2=_read_ros2(fields, inputs, outputs),
    )
    fields.ignore("params")
    check_keys(fields, kind)
    if kind is NodeKind.DYNAMIC and node.startup_timeout is not None:
        problems.error_in_name(
            fields.name_of("startup_timeout"), "dorad does not start a dynamic node", "remove it"
        )
    if kind is NodeKind.DYNAMIC and node.secrets:
        problems.error_in_name(
            fields.name_of("secrets"),
            "dorad does not start a dynamic node, so it cannot give it secrets",
            "remove it",
        )
    check_runnable(fields, fields.finish({**not_indented(fields), **INSTEAD}))
    return node


def read_one(definition: Mapping[str, Any], *, name: str = "node") -> NodeSpec:
    """Return the node that one entry of `nodes` describes in plain values, without wiring.

    Nothing in it is expanded again. Raises DataflowError, whose problems have `name` in place of
    the file.
    """
    problems = Problems(name)
    root = plain_tree(dict(definition), problems)
    node = None if root is None else read_lone_node(root, None, problems)
    if node is None or problems.errors:
        raise DataflowError(in_order(problems.errors))
    return node


def read_lone_node(
    root: Value, environ: Mapping[str, str] | None, problems: Problems
) -> NodeSpec | None:
    """Read a node that is a whole document, as `read_node` does."""
    if isinstance(root.data, dict) and "nodes" in root.data and "id" not in root.data:
        problems.error_in_name(
            root.data["nodes"], "this is a whole dataflow", "give one entry of its `nodes`"
        )
        return None
    if isinstance(root.data, list) and len(root.data) == 1:
        problems.error(root, "must be the mapping of one node, not a list", "leave out the `-`")
        return None
    node = read_node(root, {}, environ, problems)
    if node is not None and node.kind is NodeKind.MODULE and isinstance(root.data, dict):
        refuse_module(root.data["module"], problems)
    return node


def refuse_module(place: Value, problems: Problems) -> None:
    """Report a module in a place where only its expanded nodes are allowed."""
    problems.error_in_name(
        place,
        "a module cannot be used here, only its nodes",
        "`dora expand` prints a dataflow with the nodes of its modules",
    )


def _report_no_mapping(value: Value, problems: Problems) -> None:
    message = f"must be a mapping with `id` and `path`, not {value.describe()}"
    hint = None
    if value.data is None:
        message, hint = "the node is empty", "write `id` and `path`, or remove the `-`"
    elif isinstance(value.data, str) and re.match(r"\w+:\S", value.data):
        hint = "a space must follow the `:`"
    problems.error(value, message, hint)


def _check_path(text: str) -> str:
    if not text.strip():
        raise TextError("cannot be empty", "name a program or a `.py` file")
    return no_nul(text)


def _read_args(fields: Fields, kind: NodeKind) -> str | None:
    if kind is NodeKind.SHELL:
        if not fields.has("args"):
            fields.problems.error_in_name(
                fields.name_of("path"), "a shell node needs its command", "write it as `args`"
            )
        return fields.checked("args", no_nul, None)
    return fields.checked("args", _check_args, None)


def _check_args(text: str) -> str:
    split_args(no_nul(text))
    return text


def _read_sha256(fields: Fields, kind: NodeKind) -> str | None:
    digest = fields.checked("path_sha256", _check_sha256, None)
    if digest is not None and kind is not NodeKind.URL and fields.has("path"):
        fields.problems.error_in_name(
            fields.name_of("path_sha256"), "only a `path` that is a URL can have a checksum"
        )
    return digest


def _check_sha256(text: str) -> str:
    if not re.fullmatch(_SHA256, text):
        raise TextError("must be 64 hexadecimal digits", "the output of `sha256sum FILE`")
    return text.lower()


def _check_hub(text: str) -> str:
    if not re.fullmatch(_HUB, text):
        raise TextError(f"`{text}` is not a package", "write `name@1.2` or `namespace/name@1.2`")
    return text


def _check_module(text: str) -> str:
    if not text:
        raise TextError("cannot be empty")
    if "\0" in text:
        raise TextError("contains a NUL character")
    if text.startswith("/"):
        raise TextError(f"`{text}` leaves the directory of the dataflow", "write a relative path")
    return text


def _check_git(text: str) -> str:
    if re.fullmatch(_GIT, text) is None:
        raise TextError(
            f"`{text}` is not the URL of a repository",
            "write `https://HOST/PATH`, `ssh://…`, `user@HOST:PATH` or `file:///PATH`",
        )
    return text


def _check_reference(text: str) -> str:
    # As git's own rules; `-` would be an option.
    if re.fullmatch(r"[^-\s~^:?*\[\\\x00-\x1f\x7f][^\s~^:?*\[\\\x00-\x1f\x7f]*", text) is None:
        raise TextError(f"`{text}` is not the name of a branch, a tag or a commit")
    return text


def _read_git(fields: Fields) -> Git | None:
    url = fields.checked("git", _check_git, None)
    branch, tag, rev = (
        fields.checked(key, _check_reference, None) for key in ("branch", "tag", "rev")
    )
    given = [key for key in ("branch", "tag", "rev") if fields.has(key)]
    for key in given if url is None else given[1:]:
        message = f"`{given[0]}` and `{key}` exclude each other" if url else "needs `git`"
        fields.problems.error_in_name(fields.name_of(key), message)
    return None if url is None else Git(url, branch, tag, rev)


def _read_cores(fields: Fields) -> tuple[int, ...]:
    items = fields.items("cpu_affinity")
    warn_twice(items, fields.problems)
    cores = (integer(item, fields.problems, 0, _MAX_CORES) for item in items)
    return tuple(dict.fromkeys(core for core in cores if core is not None))


def _read_realtime(fields: Fields, inputs: tuple[Input, ...]) -> Realtime | None:
    if not fields.has("realtime"):
        fields.ignore("realtime")
        return None
    from dorad.dataflow.realtime import read_realtime  # most dataflows have none

    return read_realtime(fields, inputs)


def _read_sync(fields: Fields, inputs: tuple[Input, ...]) -> tuple[Sync, ...]:
    if not fields.has("sync"):
        fields.ignore("sync")
        return ()
    from dorad.dataflow.sync import read_sync  # most nodes have none

    return read_sync(fields, inputs)


def _read_resources(fields: Fields) -> Resources | None:
    if not fields.has("resources"):
        fields.ignore("resources")
        return None
    from dorad.dataflow.resources import read_resources  # most dataflows have none

    return read_resources(fields)


def _read_ros2(
    fields: Fields, inputs: tuple[Input, ...], outputs: tuple[str, ...]
) -> Ros2Bridge | None:
    if not fields.has("ros2"):
        fields.ignore("ros2")
        return None
    from dorad.dataflow.ros2 import read_ros2  # most dataflows have none

    return read_ros2(fields, inputs, outputs)


def _check_user(text: str) -> str:
    if not re.fullmatch(_USER, text):
        raise TextError(f"`{text}` is not a valid user name")
    return text


def _check_group(text: str) -> str:
    if not re.fullmatch(_USER, text):
        raise TextError(f"`{text}` is not a valid name of a group")
    return text


def _read_secrets(fields: Fields) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(fields.texts("secrets", check_secret_name)))
    if len(names) > MAX_NODE_SECRETS:
        fields.problems.error_in_name(
            fields.name_of("secrets"),
            f"has {len(names)} secrets; a node has at most {MAX_NODE_SECRETS}",
        )
    return names


def _read_restart(fields: Fields) -> Restart:
    return Restart(
        fields.choice("restart_policy", RestartPolicy) or RestartPolicy.NEVER,
        fields.integer("max_restarts", maximum=_MAX_RESTARTS) or 0,
        fields.seconds("restart_delay"),
        fields.seconds("max_restart_delay"),
        fields.seconds("restart_window", if_zero=_NEVER_COUNTED),
    )


def _read_operators(fields: Fields) -> tuple[Operator, ...]:
    fields.ignore("operator", "operators")
    if not (fields.has("operator") or fields.has("operators")):
        return ()
    from dorad.dataflow.operators import read_operators  # most dataflows have none

    return read_operators(fields)


def _read_logging(fields: Fields, operators: tuple[Operator, ...]) -> Logging:
    from dorad.dataflow.operators import read_shared_logging  # most dataflows have none

    return read_shared_logging(fields, operators)
