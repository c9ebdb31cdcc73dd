"""Check types between nodes: annotations name known types, both ends of an edge match."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dorad.dataflow.errors import Problem, TextError
from dorad.dataflow.model import Dataflow, Input, NodeOutput, Timer
from dorad.dataflow.nearest import near
from dorad.dataflow.problems import in_order
from dorad.dataflow.types.compatible import Rule, detail, fits
from dorad.dataflow.types.library import Library
from dorad.dataflow.types.ports import ROS2, Body, bodies, bridged_types, is_typed, output_types
from dorad.dataflow.types.standard import TIMER
from dorad.dataflow.types.urn import Urn, parse_urn


@dataclass(frozen=True, slots=True)
class Findings:
    """The findings about the types of a dataflow, in the order of the file."""

    warnings: tuple[Problem, ...] = ()
    lacking: tuple[Problem, ...] = ()
    """Inputs with a type whose source has none, so that the edge cannot be checked."""
    inferred: tuple[Problem, ...] = ()
    """Inputs without a type whose source has one."""


def check_types(dataflow: Dataflow) -> Findings:
    """Check every annotation and every edge."""
    return _Check(dataflow).run() if is_typed(dataflow) else Findings()


class _Check:
    def __init__(self, dataflow: Dataflow) -> None:
        self._dataflow = dataflow
        self._library = Library(dataflow.own_types)
        self._nodes = {node.id: node for node in dataflow.nodes}
        self._outputs: dict[str, Mapping[str, str]] = {}
        self._warnings: list[Problem] = []
        self._lacking: list[Problem] = []
        self._inferred: list[Problem] = []

    def run(self) -> Findings:
        self._rules = self._read_rules()
        for body in bodies(self._dataflow):
            for output, text in body.types.outputs.items():
                if output in body.outputs:
                    self._known(text, f"{body.key}.output_types.{output}")
            for item in body.inputs:
                self._check_input(body, item)
        return Findings(in_order(self._warnings), in_order(self._lacking), in_order(self._inferred))

    def _read_rules(self) -> list[Rule]:
        rules = []
        for index, rule in enumerate(self._dataflow.type_rules):
            source = self._known(rule.source, f"type_rules[{index}].from")
            target = self._known(rule.target, f"type_rules[{index}].to")
            if source is not None and target is not None:
                rules.append((source, target))
        return rules

    def _known(self, text: str, key: str) -> Urn | None:
        """Return the URN of a known type; warn and return None for an unknown one."""
        try:
            urn = parse_urn(text)
        except TextError as error:
            self._warn(key, error.message, error.hint)
            return None
        kind = self._library.get(urn.base)
        if kind is None:
            self._warn(key, f"unknown type `{urn.base}`", self._library.hint(urn.base))
            return None
        declared = [param.name for param in kind.params]
        for param in urn.params:
            if param not in declared and (meant := near(param, declared)) is not None:
                message = f"`{urn.base}` has no parameter `{param}`"
                self._warn(key, message, f"did you mean `{meant}`?")
        return urn

    def _check_input(self, body: Body, item: Input) -> None:
        key = f"{body.key}.input_types.{item.id}"
        text = body.types.inputs.get(item.id)
        target = None if text is None else self._known(text, key)
        bridged = bridged_types(self._nodes[body.node], "publish").get(item.id)
        if text is None and bridged is not None:
            key = f"{body.key}.inputs.{item.id}"
            target = parse_urn(bridged)
        source = item.source
        if isinstance(source, Timer):
            if target is not None and not fits(Urn(TIMER), target, self._rules):
                message = f"`{source.text}` sends `{TIMER}`, but `{target}` is expected"
                hint = "a tick carries no data" + ("; remove the type" if text is not None else "")
                self._warn(key, message, hint)
            return
        if not isinstance(source, NodeOutput):
            return
        written = self._output_types(source.node).get(source.output)
        if written is None:
            if text is not None and target is not None:
                message = f"`{target}` is expected, but `{source.text}` has no type"
                hint = f"add it to `output_types` of `{source.node}`"
                self._lacking.append(self._dataflow.problem(key, message, hint))
            return
        given = self._known_or_none(written)
        if given is None:
            return
        if target is None and text is None:
            inferred = f"has the inferred type `{given}`, from `{source.text}`"
            where = f"{body.key}.inputs.{item.id}"
            self._inferred.append(self._dataflow.problem(where, inferred))
        elif target is not None and not fits(given, target, self._rules):
            self._mismatch(key, source, given, target)

    def _mismatch(self, key: str, source: NodeOutput, given: Urn, target: Urn) -> None:
        message = f"`{source.text}` sends `{given}`, but `{target}` is expected"
        reason = None
        if given.base == target.base:
            names = [name for name in given.params if target.params.get(name) is not None]
            different = [name for name in names if given.params[name] != target.params[name]]
            reason = f"they differ in `{different[0]}`"
        else:
            from_shape, to_shape = self._library.get(given.base), self._library.get(target.base)
            if from_shape is not None and to_shape is not None:
                reason = detail(self._library, from_shape.shape, to_shape.shape)
        self._warn(key, message, reason)

    def _output_types(self, node_id: str) -> Mapping[str, str]:
        if node_id not in self._outputs:
            node = self._nodes.get(node_id)
            self._outputs[node_id] = (
                {} if node is None else {**bridged_types(node, "subscribe"), **output_types(node)}
            )
        return self._outputs[node_id]

    def _known_or_none(self, text: str) -> Urn | None:
        """Return the URN of an output, or None; invalid ones were reported elsewhere.

        A message of ROS 2 need not be known here: its name is enough.
        """
        try:
            urn = parse_urn(text)
        except TextError:
            return None
        is_known = urn.base.startswith(ROS2) or self._library.get(urn.base) is not None
        return urn if is_known else None

    def _warn(self, key: str, message: str, hint: str | None) -> None:
        self._warnings.append(self._dataflow.problem(key, message, hint))
