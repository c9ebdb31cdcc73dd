"""Check the declared ends of services, actions and streams; every finding is a warning.

The `pattern` of a node declares its part, such as `service-server`. `input_patterns` and
`output_patterns` declare what its ports carry, such as requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dorad.dataflow.model import Input, NodeOutput, NodeSpec
from dorad.dataflow.nearest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dorad.dataflow.fields import Fields
    from dorad.dataflow.settings import Types

PARTS = {
    "service-client": "service-server",
    "service-server": "service-client",
    "action-client": "action-server",
    "action-server": "action-client",
}
"""Each part that a node may play, with the part at the other end."""

ANSWERS = {
    "service-request": ("service-response",),
    "action-goal": ("action-feedback", "action-result"),
}
"""What the receiver of a request or a goal must send back."""

ROLES = (
    *ANSWERS,
    "service-response",
    "action-feedback",
    "action-result",
    "action-cancel",
    "stream",
)
"""The roles that a port may have."""


def read_pattern(owner: Fields) -> str | None:
    """Return the declared part of a node or operator; warn about an unknown one."""
    pattern = owner.text("pattern")
    if pattern is not None and pattern not in PARTS:
        hint = did_you_mean(pattern, PARTS) or f"known: {', '.join(PARTS)}"
        owner.problems.warn(owner.name_of("pattern"), f"unknown pattern `{pattern}`", hint)
    return pattern


def read_roles(owner: Fields, key: str) -> dict[str, str]:
    """Return the declared roles of ports; warn about unknown ones."""
    roles = owner.text_map(key)
    value = owner.take(key)
    for port, item in (value.data if value and isinstance(value.data, dict) else {}).items():
        role = roles.get(port)
        if role is not None and role not in ROLES:
            hint = did_you_mean(role, ROLES) or f"known: {', '.join(ROLES)}"
            owner.problems.warn(item, f"unknown pattern `{role}`", hint)
    return roles


class _Owner(NamedTuple):
    """A node or one of its operators; `outputs` are keyed as sources name them."""

    node: str
    key: str
    inputs: tuple[Input, ...]
    outputs: dict[str, str]
    types: Types

    def sources(self) -> Iterator[tuple[Input, NodeOutput]]:
        for item in self.inputs:
            if isinstance(item.source, NodeOutput):
                yield item, item.source


class Mismatch(NamedTuple):
    """A declared end without a matching other end."""

    key: str
    message: str
    hint: str | None = None


def check_patterns(nodes: Sequence[NodeSpec]) -> list[Mismatch]:
    """Return every declared end without a matching other end."""
    owners = [owner for node in nodes for owner in _owners(node)]
    declared = [o for o in owners if o.types.pattern or o.types.roles_in or o.types.roles_out]
    mismatches: list[Mismatch] = []
    for owner in declared:
        check = _Check(owner, owners, mismatches)
        check.part()
        for output, role in owner.types.roles_out.items():
            check.output(output, role)
        for item, source in owner.sources():
            check.input(item, source)
    return mismatches


def _owners(node: NodeSpec) -> Iterator[_Owner]:
    yield _Owner(node.id, node.key, node.inputs, {o: o for o in node.outputs}, node.types)
    for index, operator in enumerate(node.operators):
        body = node.operator_key(index)
        outputs = {f"{operator.id}/{output}": output for output in operator.outputs}
        yield _Owner(node.id, body, operator.inputs, outputs, operator.types)


class _Check:
    def __init__(self, owner: _Owner, owners: Sequence[_Owner], mismatches: list[Mismatch]) -> None:
        self._owner = owner
        self._owners = owners
        self._found = mismatches

    def _warn(self, key: str, message: str, hint: str | None = None) -> None:
        self._found.append(Mismatch(f"{self._owner.key}.{key}", message, hint))

    def _receivers(self, outputs: set[str]) -> list[tuple[_Owner, Input]]:
        return [
            (other, item)
            for other in self._owners
            for item, source in other.sources()
            if source.node == self._owner.node and source.output in outputs
        ]

    def _partners(self) -> list[_Owner]:
        """Return the nodes that receive from this one and send something back."""
        feeding = {(source.node, source.output) for _, source in self._owner.sources()}
        partners = []
        for other, _ in self._receivers(set(self._owner.outputs)):
            back = any((other.node, output) in feeding for output in other.outputs)
            if back and other not in partners:
                partners.append(other)
        return partners

    def part(self) -> None:
        """Check that a node at the other end plays the other part."""
        pattern = self._owner.types.pattern
        wanted = PARTS.get(pattern or "")
        if wanted is None:
            return
        partners = self._partners()
        if not partners:
            self._warn(
                "pattern",
                f"`{pattern}` has no {wanted}: no node receives an output of "
                f"`{self._owner.node}` and sends something back",
                f"connect an output to its {wanted}, and an input from it",
            )
        elif not any(other.types.pattern in (None, wanted) for other in partners):
            parts = ", ".join(f"`{each.node}` is `{each.types.pattern}`" for each in partners)
            self._warn("pattern", f"`{pattern}` has no {wanted}: {parts}")

    def output(self, output: str, role: str) -> None:
        """Check that an output has a receiver, and that required answers come back."""
        names = {full for full, short in self._owner.outputs.items() if short == output}
        key = f"output_patterns.{output}"
        receivers = self._receivers(names)
        if not names or role not in ROLES:
            return
        if not receivers:
            self._warn(key, f"`{output}` is `{role}`, but no node receives it")
            return
        for wanted in ANSWERS.get(role, ()):
            there = [other for other, _ in receivers if self._comes_back(other, wanted)]
            if not there:
                receiver_list = " and ".join(f"`{other.node}`" for other, _ in receivers)
                self._warn(
                    key,
                    f"`{output}` is `{role}`, but no `{wanted}` comes back from {receiver_list}",
                    "give this node an input for it",
                )
                # One warning per output is enough.
                return

    def _comes_back(self, other: _Owner, wanted: str) -> bool:
        """Return True if an input from `other` declares `wanted`, or no role is declared."""
        for item, source in self._owner.sources():
            if source.node == other.node and source.output in other.outputs:
                declared = self._owner.types.roles_in.get(item.id)
                sent = other.types.roles_out.get(other.outputs[source.output])
                if (declared or sent or wanted) == wanted:
                    return True
        return False

    def input(self, item: Input, source: NodeOutput) -> None:
        """Check that an input and its source declare the same role."""
        role = self._owner.types.roles_in.get(item.id)
        for other in self._owners:
            if role is None or other.node != source.node or source.output not in other.outputs:
                continue
            sent = other.types.roles_out.get(other.outputs[source.output])
            if sent is not None and sent != role:
                self._warn(
                    f"input_patterns.{item.id}",
                    f"`{item.id}` is `{role}`, but its source `{source.text}` is `{sent}`",
                )
