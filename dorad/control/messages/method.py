"""The declaration of a method of the control API.

It stands beside the types of its request and its answer. Handlers, roles, times, clients and the
documents derive from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

import msgspec

from dorad.control.messages.base import Struct

P = TypeVar("P", bound=Struct)
R = TypeVar("R", bound=Struct)

NeededRole = Literal["viewer", "operator", "admin", "enrolling", "coordinator"]
"""The lowest role that may call a method of a coordinator.

`enrolling` allows a robot that has a token for its enrolment, and admins. `coordinator` marks the
methods of a robot's agent, which no client may call.
"""

Scope = Literal["server", "placed", "any"]
"""Which dataflows a coordinator's method is about.

`any`: also one that only a robot knows, named `ROBOT/NAME`; then its daemon answers. `placed`: one
that the coordinator has placed; another one is refused. `server`: the method decides itself, or is
about no dataflow.
"""

Record = Literal["", "names", "values"]
"""What a coordinator writes into the audit before it lets a robot do what the store does not hold.

`names`: of the dataflow and the node. `values`: also the old and the new value of the parameter.
"""


def usual(_params: Struct) -> float | None:
    """Return no seconds: the time of the server's limits is enough."""
    return 0.0


class Method(msgspec.Struct, Generic[P, R], frozen=True):
    """A method: its name, who may call it, its request and its answer."""

    stream: ClassVar[bool] = False
    """Whether it is answered by a stream of events of the type `result`, not by one reply."""
    binary: ClassVar[bool] = False
    """Whether the events are binary frames with `result` as their header."""

    name: str
    role: NeededRole
    params: type[P]
    result: type[R]
    summary: str
    seconds: Callable[[P], float | None] = usual
    """Returns the time that a request allows beyond the usual; None means no limit."""
    scope: Scope = "server"
    record: Record = ""
    report: bool = False
    """Whether the coordinator asks each robot for it, of its own accord, and not for a client."""

    def time_allowed(self, params: P, usual: float) -> float | None:
        """Return the seconds that a call with these parameters may take; None means no limit."""
        more = self.seconds(params)
        return None if more is None else usual + more


class CallMethod(Method[P, R], frozen=True):
    """A method with one answer."""


class StreamMethod(Method[P, R], frozen=True):
    """A method with a stream of events."""

    stream: ClassVar[bool] = True


class FrameMethod(Method[P, R], frozen=True):
    """A method with a stream of binary frames."""

    stream: ClassVar[bool] = True
    binary: ClassVar[bool] = True


AnyMethod: TypeAlias = "Method[Any, Any]"
MethodTable: TypeAlias = "Mapping[str, AnyMethod]"


def defined_in(*modules: ModuleType) -> Iterator[AnyMethod]:
    """Yield the methods that stand in these modules."""
    for module in modules:
        yield from (each for each in vars(module).values() if isinstance(each, Method))


def by_name(methods: Iterable[AnyMethod]) -> dict[str, AnyMethod]:
    """Return methods by their names.

    Raises:
        ValueError: two methods have one name.
    """
    table: dict[str, AnyMethod] = {}
    for method in methods:
        if table.setdefault(method.name, method) is not method:
            raise ValueError(f"there are two methods `{method.name}`")
    return table
