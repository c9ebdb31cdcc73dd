"""The table of methods that the daemon serves over the control API."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dorad.control.session import HandlerTable
from dorad.daemon.api.dataflows import DataflowMethods
from dorad.daemon.api.fleet import FleetMethods
from dorad.daemon.api.incidents import IncidentMethods
from dorad.daemon.api.leases import LeaseMethods
from dorad.daemon.api.nodes import NodeMethods
from dorad.daemon.api.params import ParamMethods
from dorad.daemon.api.shares import ShareMethods
from dorad.daemon.api.topics import TopicMethods
from dorad.daemon.api.traces import TracedDataflow, TraceMethods

if TYPE_CHECKING:
    from dorad.daemon.leases import Leases
    from dorad.daemon.measuring.measure import Measure
    from dorad.daemon.measuring.watching import SelfWatch
    from dorad.daemon.registry import Registry
    from dorad.daemon.service import Service


def handlers(
    service: Service,
    registry: Registry,
    measure: Measure,
    watch: SelfWatch,
    leases: Leases,
) -> HandlerTable:
    """Return the handler of each method of the control API."""
    return HandlerTable.of(
        DataflowMethods(service, registry, measure),
        ShareMethods(registry),
        NodeMethods(registry, measure),
        TopicMethods(registry, measure),
        ParamMethods(registry),
        FleetMethods(registry, measure, watch),
        LeaseMethods(registry, leases),
        IncidentMethods(registry),
        TraceMethods(registry.runner.traces, partial(traced, registry)),
    )


def traced(registry: Registry, wanted: str | None) -> list[TracedDataflow]:
    """Return one dataflow with its traces, or all. Raises ControlError."""
    records = registry.records if wanted is None else [registry.find(wanted, ended_too=True)]
    return [
        TracedDataflow(record.uuid, record.name, None)
        if (run := record.run) is None
        else TracedDataflow(record.uuid, record.name, run.tracer, run.link.links.origin)
        for record in records
    ]
