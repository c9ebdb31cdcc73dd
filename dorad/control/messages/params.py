"""Messages about the parameters of nodes."""

from __future__ import annotations

from typing import Any

from dorad.control.messages.base import Nothing, Struct
from dorad.control.messages.method import CallMethod
from dorad.control.messages.nodes import NodeRef


class ParamRef(Struct):
    """One parameter of a node."""

    node: str
    key: str
    dataflow: str | None = None


class ParamSet(Struct):
    """Set a parameter and notify the node. Refused if its declaration forbids the value."""

    node: str
    key: str
    value: Any
    dataflow: str | None = None


class Param(Struct):
    """A parameter with its current value and its declaration."""

    key: str
    value: Any
    declared: bool = False
    type: str | None = None
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    choices: list[Any] | None = None
    description: str | None = None
    delivered: bool = True
    """Whether the running node was notified. If not, it gets the value when it starts."""


class ParamList(Struct):
    """The parameters of a node."""

    params: list[Param]


PARAM_LIST = CallMethod(
    "param.list", "viewer", NodeRef, ParamList, "List a node's parameters.", scope="any"
)
PARAM_GET = CallMethod("param.get", "viewer", ParamRef, Param, "Return one parameter.", scope="any")
PARAM_SET = CallMethod(
    "param.set",
    "operator",
    ParamSet,
    Param,
    "Set a parameter and notify the node.",
    scope="any",
    record="values",
)
PARAM_DELETE = CallMethod(
    "param.delete",
    "operator",
    ParamRef,
    Nothing,
    "Delete a parameter and notify the node. A declared one returns to its default.",
    scope="any",
    record="values",
)
