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
    traces,
)
from dorad.control.messages.base import *
from dorad.control.messages.daemon import *
from dorad.control.messages.dataflows import *
from dorad.control.messages.fleet import *
from dorad.control.messages.frames import *
from dorad.control.messages.incidents import *
from dorad.control.messages.leases import *
from dorad.control.messages.logs import *
from dorad.control.messages.method import *
from dorad.control.messages.method import by_name, defined_in
from dorad.control.messages.nodes import *
from dorad.control.messages.params import *
from dorad.control.messages.releases import Lease
from dorad.control.messages.shares import *
from dorad.control.messages.topics import *
from dorad.control.messages.traces import *
from dorad.logrecord import LogRecord

METHODS = by_name(
    defined_in(daemon, dataflows, nodes, fleet, topics, traces, params, incidents, leases, logs)
)
"""The methods of a daemon, which a coordinator has, too."""
