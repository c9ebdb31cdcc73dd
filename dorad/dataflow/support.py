"""What is valid but cannot be run: keys that are not implemented, and too many nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dorad.dataflow.model import Dataflow, NodeKind, NodeSpec, Operator
from dorad.dataflow.problems import in_order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dorad.dataflow.errors import Problem

MAX_NODES = 1000
"""Maximum nodes of one dataflow. More would block the daemon's event loop for other dataflows."""

TOO_MANY_HINT = "split it into several dataflows"


class _Unsupported(NamedTuple):
    key: str
    hint: str
    message: str | None = None
    """The message; None for the default one with the last part of the key."""

    def text(self) -> str:
        return self.message or f"`{self.key.rsplit('.', 1)[-1]}` is not supported yet"


def unsupported(dataflow: Dataflow, *, placed: bool = False) -> tuple[Problem, ...]:
    """Return a problem for each key that is not implemented, and for too many nodes.

    They are in the order of the file.

    `deploy` is implemented where a coordinator has `placed` the nodes on machines.

    A key with its default value is allowed. Such a dataflow can be validated, but not run, since
    running it would ignore the key.
    """
    problems = [] if placed else [*_deploys(dataflow)]
    if len(dataflow.nodes) > MAX_NODES:
        problems.append(_Unsupported("nodes", TOO_MANY_HINT, too_many(len(dataflow.nodes))))
    for node in dataflow.nodes:
        problems += _of_node(node)
    return in_order(dataflow.problem(each.key, each.text(), each.hint) for each in problems)


def too_many(nodes: int) -> str:
    """Return the message about a dataflow with more than MAX_NODES nodes."""
    return f"{nodes} nodes are too many for one dataflow; the maximum is {MAX_NODES}"


def _deploys(dataflow: Dataflow) -> Iterator[_Unsupported]:
    keys = ["deploy"] if dataflow.deploy is not None else []
    keys += [f"{node.key}.deploy" for node in dataflow.nodes if node.deploy is not None]
    for key in keys:
        yield _Unsupported(
            key,
            "start it with `dora start --coordinator-addr`, or remove it to run everything here",
            "`deploy` needs the coordinator of a fleet",
        )


def _of_node(node: NodeSpec) -> Iterator[_Unsupported]:
    if node.kind is NodeKind.HUB:
        yield _Unsupported(
            f"{node.key}.hub", "install the package and name its program with `path`"
        )
    for index, operator in enumerate(node.operators):
        body = node.operator_key(index)
        yield from _of_operator(body, operator)


def _of_operator(key: str, operator: Operator) -> Iterator[_Unsupported]:
    if operator.language != "python":
        yield _Unsupported(
            f"{key}.{operator.language}",
            "write the operator in Python, or make it a separate program and name it with `path`",
            f"operators are written in Python; a `{operator.language}` cannot be loaded",
        )
    elif operator.source.startswith(("http://", "https://")):
        yield _Unsupported(
            f"{key}.python", "download it yourself and name the file", "an operator is a local file"
        )
    if operator.conda_env is not None:
        yield _Unsupported(
            f"{key}.python.conda_env",
            "remove it and start dora from the environment with the operator's packages,"
            " or set VIRTUAL_ENV in the node's `env`",
            "conda environments are not activated",
        )
