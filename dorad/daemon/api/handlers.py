"""The table of methods that the daemon serves over the control API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.daemon.api.dataflows import DataflowMethods
from dorad.daemon.api.fleet import FleetMethods
from dorad.daemon.api.incidents import IncidentMethods
from dorad.daemon.api.leases import LeaseMethods
from dorad.daemon.api.nodes import NodeMethods
from dorad.daemon.api.params import ParamMethods
from dorad.daemon.api.shares import ShareMethods
from dorad.daemon.api.topics import TopicMethods

if TYPE_CHECKING:
    from dorad.control.server import Handler, StreamHandler
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
) -> dict[str, Handler | StreamHandler]:
    """Return the handler of each method of the control API."""
    dataflows = DataflowMethods(service, registry, measure)
    nodes = NodeMethods(registry, measure)
    topics = TopicMethods(registry, measure)
    params = ParamMethods(registry)
    fleet = FleetMethods(registry, measure, watch)
    shares = ShareMethods(registry)
    busy = LeaseMethods(registry, leases)
    incidents = IncidentMethods(registry)
    return {
        "daemon.status": dataflows.status,
        "daemon.shutdown": dataflows.shutdown,
        "dataflow.start": dataflows.start,
        "dataflow.open": shares.open,
        "dataflow.update": shares.update,
        "dataflow.wait": dataflows.wait,
        "dataflow.stop": dataflows.stop,
        "dataflow.restart": dataflows.restart,
        "dataflow.list": dataflows.list_all,
        "dataflow.info": dataflows.info,
        "dataflow.clean": dataflows.clean,
        "dataflow.enable": dataflows.enable,
        "node.list": nodes.list_all,
        "node.info": nodes.info,
        "node.add": nodes.add,
        "node.remove": nodes.remove,
        "node.replace": nodes.replace,
        "node.connect": nodes.connect,
        "node.disconnect": nodes.disconnect,
        "node.restart": nodes.restart,
        "node.stop": nodes.stop,
        "top": topics.top,
        "top.watch": fleet.top,
        "fleet.watch": fleet.rows,
        "alerts.watch": fleet.alerts,
        "alerts.past": fleet.past_alerts,
        "alerts.ack": fleet.ack,
        "topic.list": topics.list_all,
        "topic.watch": topics.watch,
        "topic.subscribe": topics.subscribe,
        "topic.publish": topics.publish,
        "param.list": params.list_all,
        "param.get": params.get,
        "param.set": params.set,
        "param.delete": params.delete,
        "incident.list": incidents.list_all,
        "lease.list": busy.list_all,
        "lease.take": busy.take,
        "lease.hold": busy.hold,
        "lease.end": busy.end,
        "logs.read": dataflows.read_logs,
        "watch": dataflows.watch,
    }
