"""The methods `param.…`."""

from typing import Any

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.session import Call, handles
from dorad.daemon.api.nodes import node_of
from dorad.daemon.record import Record
from dorad.daemon.registry import Registry
from dorad.dataflow import params as rules
from dorad.dataflow.model import NodeSpec


class ParamMethods:
    """Answers the methods `param.…`. Parameters of an ended dataflow can be read until `clean`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @handles(m.PARAM_LIST)
    async def list_all(self, _call: Call, params: m.NodeRef) -> m.ParamList:
        """List a node's parameters: the declared ones first, then the others that were set."""
        record, node = self._find(params.dataflow, params.node)
        given = sorted(set(record.params.get(node.id, {})) - set(node.declared))
        return m.ParamList(params=[_param(record, node, key) for key in [*node.declared, *given]])

    @handles(m.PARAM_GET)
    async def get(self, _call: Call, params: m.ParamRef) -> m.Param:
        """Return one parameter."""
        record, node = self._find(params.dataflow, params.node)
        _check_known(record, node, params.key)
        return _param(record, node, params.key)

    @handles(m.PARAM_SET)
    async def set(self, _call: Call, params: m.ParamSet) -> m.Param:
        """Set a parameter and notify the node."""
        record, run, dataflow = self._registry.find_run(params.dataflow)
        node = node_of(dataflow, params.node)
        try:
            rules.check_key(params.key)
            value = rules.check(node.declared.get(params.key), params.value)
        except ValueError as error:
            raise ControlError("refused", f"{node.id}.{params.key}: {error}") from error
        self._registry.store.set_param(record, node.id, params.key, value)
        delivered = run.broker.params.update(node.id, params.key, value)
        data = {"key": params.key, "value": value}
        run.publish("param-changed", node.id, f"{params.key} set", data)
        return _param(record, node, params.key, delivered=delivered)

    @handles(m.PARAM_DELETE)
    async def delete(self, _call: Call, params: m.ParamRef) -> m.Nothing:
        """Delete a set parameter and notify the node; a declared one returns to its default."""
        record, run, dataflow = self._registry.find_run(params.dataflow)
        node = node_of(dataflow, params.node)
        _check_known(record, node, params.key)
        self._registry.store.delete_param(record, node.id, params.key)
        spec = node.declared.get(params.key)
        if spec is None:
            run.broker.params.delete(node.id, params.key)
        else:
            run.broker.params.delete(node.id, params.key, value=spec.default)
        run.publish("param-changed", node.id, f"{params.key} deleted", {"key": params.key})
        return m.Nothing()

    def _find(self, dataflow: str | None, node_id: str) -> tuple[Record, NodeSpec]:
        record = self._registry.find(dataflow, ended_too=True)
        return record, node_of(self._registry.dataflow_of(record), node_id)


def _check_known(record: Record, node: NodeSpec, key: str) -> None:
    known = set(node.declared) | set(record.params.get(node.id, {}))
    if key not in known:
        names = ", ".join(sorted(known)) or "none"
        raise ControlError(
            "not-found", f"node {node.id!r} has no parameter {key!r}; it has: {names}"
        )


def _param(record: Record, node: NodeSpec, key: str, *, delivered: bool = True) -> m.Param:
    spec = node.declared.get(key)
    given: dict[str, Any] = record.params.get(node.id, {})
    if spec is None:
        return m.Param(key=key, value=given[key], delivered=delivered)
    return m.Param(
        key=key,
        value=given.get(key, spec.default),
        declared=True,
        type=str(spec.type),
        default=spec.default,
        minimum=spec.minimum,
        maximum=spec.maximum,
        choices=list(spec.choices) or None,
        description=spec.description,
        delivered=delivered,
    )
