"""The messages of the control API as plain structs: one request, one reply, or a stream of events.

Times are seconds since 1970 (UTC), durations are seconds, sizes are bytes, unless a name says
otherwise. A new field gets a default, so that older and newer programs understand each other;
`PROTOCOL` increases with every change that breaks this.
"""

from dorad.control.messages.base import PROTOCOL, Nothing, Struct
from dorad.control.messages.daemon import DaemonStatus, Interface, Network, Shutdown
from dorad.control.messages.dataflows import (
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
from dorad.control.messages.incidents import BlackBox, Incident, IncidentList
from dorad.control.messages.leases import LeaseList, LeaseRef, LeaseTake
from dorad.control.messages.logs import Event, LogLines, LogRead, Watch
from dorad.control.messages.nodes import (
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
from dorad.control.messages.params import Param, ParamList, ParamRef, ParamSet
from dorad.control.messages.releases import Lease
from dorad.control.messages.shares import LineUse, LinkChannel, LinkPeer, LinkTls, Share, Update
from dorad.control.messages.table import METHODS, Method
from dorad.control.messages.topics import (
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

# fmt: off
__all__ = [
    "METHODS", "PROTOCOL", "Alert", "AlertAck", "AlertWatch", "Alerts", "BlackBox", "Cancel",
    "Changed",
    "DaemonStatus", "DataflowDetail", "DataflowInfo", "DataflowList", "DataflowState",
    "EdgeNew", "EdgeRef", "EdgeStats", "Enable", "Error", "ErrorCode", "Event",
    "Failure", "Finding", "FleetRow", "FleetRows", "FleetWatch", "Hello",
    "Incident", "IncidentList", "Interface", "InterfaceRates", "Lease", "LeaseList", "LeaseRef",
    "LeaseTake", "LineUse", "LinkChannel", "LinkPeer", "LinkTls", "LogLines", "LogRead",
    "LogRecord", "Method", "Network", "NodeAdd", "NodeDetail", "NodeInfo", "NodeList",
    "NodeMetrics", "NodeRef", "NodeReplace", "NodeResult", "NodeStatus", "NodeStop", "Nothing",
    "Param", "ParamList",
    "ParamRef", "ParamSet", "PastAlert", "PastAlerts", "PastAlertsRead", "Preview",
    "Published", "Ref", "Reply", "Request", "Restarted", "RowState", "Severity", "Share",
    "Shutdown", "Start", "Started", "Status", "Stop", "Struct", "Subscriber", "Top", "TopOrder",
    "TopPart", "TopWatch",
    "TopicHeader", "TopicInfo", "TopicList", "TopicPublish", "TopicRate", "TopicRates",
    "TopicSubscribe", "TopicWatch", "Until", "Update", "Wait", "Watch", "Welcome"
]
# fmt: on
