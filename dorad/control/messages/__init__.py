"""The messages of the control API as plain structs: one request, one reply, or a stream of events.

Times are seconds since 1970 (UTC), durations are seconds, sizes are bytes, unless a name says
otherwise. A new field gets a default, so that older and newer programs understand each other;
`PROTOCOL` increases with every change that breaks this.
"""

from dorad.control.messages import (
    daemon,
    dataflows,
    fleet,
    incidents,
    leases,
    logs,
    nodes,
    params,
    topics,
)
from dorad.control.messages.base import PROTOCOL, Nothing, Struct
from dorad.control.messages.daemon import (
    DAEMON_SHUTDOWN,
    DAEMON_STATUS,
    DaemonStatus,
    Interface,
    Network,
    Shutdown,
)
from dorad.control.messages.dataflows import (
    DATAFLOW_CLEAN,
    DATAFLOW_ENABLE,
    DATAFLOW_INFO,
    DATAFLOW_LIST,
    DATAFLOW_OPEN,
    DATAFLOW_RESTART,
    DATAFLOW_START,
    DATAFLOW_STOP,
    DATAFLOW_WAIT,
    DataflowDetail,
    DataflowInfo,
    DataflowList,
    DataflowState,
    Enable,
    Failure,
    NodeResult,
    Ref,
    Restarted,
    Start,
    Started,
    Status,
    Stop,
    Until,
    Wait,
)
from dorad.control.messages.fleet import (
    ALERTS_ACK,
    ALERTS_PAST,
    ALERTS_WATCH,
    FLEET_WATCH,
    TOP_WATCH,
    Alert,
    AlertAck,
    Alerts,
    AlertWatch,
    Finding,
    FleetRow,
    FleetRows,
    FleetWatch,
    PastAlert,
    PastAlerts,
    PastAlertsRead,
    RowState,
    Severity,
    TopOrder,
    TopPart,
    TopWatch,
)
from dorad.control.messages.frames import Cancel, Error, ErrorCode, Hello, Reply, Request, Welcome
from dorad.control.messages.incidents import INCIDENT_LIST, BlackBox, Incident, IncidentList
from dorad.control.messages.leases import (
    LEASE_END,
    LEASE_HOLD,
    LEASE_LIST,
    LEASE_TAKE,
    LeaseList,
    LeaseRef,
    LeaseTake,
)
from dorad.control.messages.logs import LOGS_READ, WATCH, Event, LogLines, LogRead, Watch
from dorad.control.messages.method import (
    AnyMethod,
    CallMethod,
    FrameMethod,
    Method,
    MethodTable,
    StreamMethod,
    by_name,
    defined_in,
)
from dorad.control.messages.nodes import (
    DATAFLOW_UPDATE,
    NODE_ADD,
    NODE_CONNECT,
    NODE_DISCONNECT,
    NODE_INFO,
    NODE_LIST,
    NODE_REMOVE,
    NODE_REPLACE,
    NODE_RESTART,
    NODE_STOP,
    Changed,
    EdgeNew,
    EdgeRef,
    NodeAdd,
    NodeDetail,
    NodeInfo,
    NodeList,
    NodeMetrics,
    NodeRef,
    NodeReplace,
    NodeStatus,
    NodeStop,
    Subscriber,
)
from dorad.control.messages.params import (
    PARAM_DELETE,
    PARAM_GET,
    PARAM_LIST,
    PARAM_SET,
    Param,
    ParamList,
    ParamRef,
    ParamSet,
)
from dorad.control.messages.releases import Lease
from dorad.control.messages.shares import LineUse, LinkChannel, LinkPeer, LinkTls, Share, Update
from dorad.control.messages.topics import (
    TOP,
    TOPIC_LIST,
    TOPIC_PUBLISH,
    TOPIC_SUBSCRIBE,
    TOPIC_WATCH,
    EdgeStats,
    InterfaceRates,
    Preview,
    Published,
    Top,
    TopicHeader,
    TopicInfo,
    TopicList,
    TopicPublish,
    TopicRate,
    TopicRates,
    TopicSubscribe,
    TopicWatch,
)
from dorad.logrecord import LogRecord

METHODS = by_name(
    defined_in(daemon, dataflows, nodes, fleet, topics, params, incidents, leases, logs)
)
"""The methods of a daemon, which a coordinator has, too."""

# fmt: off
__all__ = [
    "ALERTS_ACK", "ALERTS_PAST", "ALERTS_WATCH", "DAEMON_SHUTDOWN", "DAEMON_STATUS",
    "DATAFLOW_CLEAN", "DATAFLOW_ENABLE", "DATAFLOW_INFO", "DATAFLOW_LIST", "DATAFLOW_OPEN",
    "DATAFLOW_RESTART", "DATAFLOW_START", "DATAFLOW_STOP", "DATAFLOW_UPDATE", "DATAFLOW_WAIT",
    "FLEET_WATCH", "INCIDENT_LIST", "LEASE_END", "LEASE_HOLD", "LEASE_LIST", "LEASE_TAKE",
    "LOGS_READ", "METHODS", "NODE_ADD", "NODE_CONNECT", "NODE_DISCONNECT", "NODE_INFO",
    "NODE_LIST", "NODE_REMOVE", "NODE_REPLACE", "NODE_RESTART", "NODE_STOP", "PARAM_DELETE",
    "PARAM_GET", "PARAM_LIST", "PARAM_SET", "PROTOCOL", "TOP", "TOPIC_LIST", "TOPIC_PUBLISH",
    "TOPIC_SUBSCRIBE", "TOPIC_WATCH", "TOP_WATCH", "WATCH", "Alert", "AlertAck", "AlertWatch",
    "Alerts", "AnyMethod", "BlackBox", "CallMethod", "Cancel", "Changed", "DaemonStatus",
    "DataflowDetail", "DataflowInfo", "DataflowList", "DataflowState", "EdgeNew", "EdgeRef",
    "EdgeStats", "Enable", "Error", "ErrorCode", "Event", "Failure", "Finding", "FleetRow",
    "FleetRows", "FleetWatch", "FrameMethod", "Hello", "Incident", "IncidentList", "Interface",
    "InterfaceRates", "Lease", "LeaseList", "LeaseRef", "LeaseTake", "LineUse", "LinkChannel",
    "LinkPeer", "LinkTls", "LogLines", "LogRead", "LogRecord", "Method", "MethodTable",
    "Network", "NodeAdd", "NodeDetail", "NodeInfo", "NodeList", "NodeMetrics", "NodeRef",
    "NodeReplace", "NodeResult", "NodeStatus", "NodeStop", "Nothing", "Param", "ParamList",
    "ParamRef", "ParamSet", "PastAlert", "PastAlerts", "PastAlertsRead", "Preview", "Published",
    "Ref", "Reply", "Request", "Restarted", "RowState", "Severity", "Share", "Shutdown",
    "Start", "Started", "Status", "Stop", "StreamMethod", "Struct", "Subscriber", "Top",
    "TopOrder", "TopPart", "TopWatch", "TopicHeader", "TopicInfo", "TopicList", "TopicPublish",
    "TopicRate", "TopicRates", "TopicSubscribe", "TopicWatch", "Until", "Update", "Wait",
    "Watch", "Welcome"
]
# fmt: on
