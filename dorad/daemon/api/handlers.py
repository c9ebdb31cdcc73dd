"""The table of methods that the daemon serves over the control API."""

from __future__ import annotations

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
    table = HandlerTable()
    table.include(
        DataflowMethods(service, registry, measure).table,
        ShareMethods(registry).table,
        NodeMethods(registry, measure).table,
        TopicMethods(registry, measure).table,
        ParamMethods(registry).table,
        FleetMethods(registry, measure, watch).table,
        LeaseMethods(registry, leases).table,
        IncidentMethods(registry).table,
    )
    return table
