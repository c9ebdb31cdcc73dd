"""The table of methods: the types of their parameters and results."""

from __future__ import annotations

import msgspec

from dorad.control.messages.base import Nothing, Struct
from dorad.control.messages.daemon import DaemonStatus, Shutdown
from dorad.control.messages.dataflows import (
    DataflowDetail,
    DataflowInfo,
    DataflowList,
    DataflowState,
    Enable,
    Ref,
    Restarted,
    Start,
    Started,
    Stop,
    Wait,
)
from dorad.control.messages.fleet import (
    Alert,
    AlertAck,
    Alerts,
    AlertWatch,
    FleetRows,
    FleetWatch,
    PastAlerts,
    PastAlertsRead,
    TopPart,
    TopWatch,
)
from dorad.control.messages.incidents import IncidentList
from dorad.control.messages.leases import LeaseList, LeaseRef, LeaseTake
from dorad.control.messages.logs import Event, LogLines, LogRead, Watch
from dorad.control.messages.nodes import (
    Changed,
    EdgeNew,
    EdgeRef,
    NodeAdd,
    NodeDetail,
    NodeList,
    NodeRef,
    NodeReplace,
    NodeStop,
)
from dorad.control.messages.params import Param, ParamList, ParamRef, ParamSet
from dorad.control.messages.releases import Lease
from dorad.control.messages.shares import Update
from dorad.control.messages.topics import (
    Published,
    Top,
    TopicHeader,
    TopicList,
    TopicPublish,
    TopicRates,
    TopicSubscribe,
    TopicWatch,
)


class Method(msgspec.Struct, frozen=True):
    """A method of the API: the types of its parameters and of its result."""

    params: type[Struct]
    result: type[Struct]
    summary: str
    stream: bool = False
    """Whether it is answered by a stream of events of the type `result`, not by one reply."""
    binary: bool = False
    """Whether the events are binary frames with `result` as their header."""


METHODS: dict[str, Method] = {
    "daemon.status": Method(Nothing, DaemonStatus, "Return the state of the daemon."),
    "daemon.shutdown": Method(Shutdown, Nothing, "Stop the daemon."),
    "dataflow.start": Method(Start, Started, "Start a dataflow."),
    "dataflow.open": Method(Ref, Nothing, "Open the start barrier that `hold` keeps closed."),
    "dataflow.update": Method(Update, Changed, "Change a running dataflow to a new descriptor."),
    "dataflow.wait": Method(Wait, DataflowState, "Wait until a dataflow has reached a state."),
    "dataflow.stop": Method(Stop, DataflowState, "Stop a dataflow and wait for its end."),
    "dataflow.restart": Method(Stop, Restarted, "Stop a dataflow and start it again."),
    "dataflow.list": Method(Nothing, DataflowList, "List dataflows."),
    "dataflow.info": Method(Ref, DataflowDetail, "Describe one dataflow."),
    "dataflow.clean": Method(
        Nothing, DataflowList, "Remove dataflows that have ended from the list."
    ),
    "dataflow.enable": Method(
        Enable, DataflowInfo, "Choose whether a dataflow is started at boot."
    ),
    "node.list": Method(Ref, NodeList, "List the nodes of one or all dataflows."),
    "node.info": Method(NodeRef, NodeDetail, "Describe one node."),
    "node.add": Method(NodeAdd, Changed, "Add a node to a running dataflow."),
    "node.remove": Method(NodeStop, Changed, "Stop a node and remove it from its dataflow."),
    "node.replace": Method(NodeReplace, Changed, "Replace a node by another one."),
    "node.connect": Method(EdgeNew, Changed, "Add an edge."),
    "node.disconnect": Method(EdgeRef, Changed, "Remove an edge."),
    "node.restart": Method(NodeStop, Nothing, "Restart a node, regardless of its restart policy."),
    "node.stop": Method(NodeStop, Nothing, "Stop a node without restarting it."),
    "top": Method(Nothing, Top, "Measure all running nodes and their edges."),
    "top.watch": Method(TopWatch, TopPart, "Measure nodes and edges again and again.", stream=True),
    "fleet.watch": Method(FleetWatch, FleetRows, "Follow the robots in brief.", stream=True),
    "alerts.watch": Method(AlertWatch, Alerts, "Follow the alerts.", stream=True),
    "alerts.past": Method(PastAlertsRead, PastAlerts, "Return the alerts that are over."),
    "alerts.ack": Method(AlertAck, Alert, "Acknowledge an alert."),
    "topic.list": Method(Ref, TopicList, "List outputs and their subscribers."),
    "topic.watch": Method(TopicWatch, TopicRates, "Measure outputs.", stream=True),
    "topic.subscribe": Method(
        TopicSubscribe, TopicHeader, "Receive the messages of outputs.", stream=True, binary=True
    ),
    "topic.publish": Method(
        TopicPublish, Published, "Send messages on an output as if its node did."
    ),
    "param.list": Method(NodeRef, ParamList, "List a node's parameters."),
    "param.get": Method(ParamRef, Param, "Return one parameter."),
    "param.set": Method(ParamSet, Param, "Set a parameter and notify the node."),
    "param.delete": Method(ParamRef, Nothing, "Delete a parameter and notify the node."),
    "incident.list": Method(Ref, IncidentList, "List what black boxes have kept."),
    "lease.list": Method(Nothing, LeaseList, "List what must not be interrupted."),
    "lease.take": Method(LeaseTake, Lease, "Take a lease for some time."),
    "lease.hold": Method(
        LeaseTake, Lease, "Hold a lease as long as the stream is open.", stream=True
    ),
    "lease.end": Method(LeaseRef, Nothing, "End a lease that was taken for some time."),
    "logs.read": Method(LogRead, LogLines, "Read log lines, and follow new ones.", stream=True),
    "watch": Method(Watch, Event, "Follow the events of dataflows.", stream=True),
}
