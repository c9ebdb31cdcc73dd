"""dora's classes for ROS 2, which a node uses beside its dataflow: `from dora import Ros2Context`.

They need rclpy in the node's own process. Messages are Arrow arrays, as those of a bridge. All
errors are RuntimeErrors, as in dora, but for arguments of the wrong type or value.
"""

from dorad.ros2.api.actionclient import Ros2ActionClient as Ros2ActionClient
from dorad.ros2.api.actionserver import Ros2ActionServer as Ros2ActionServer
from dorad.ros2.api.context import Ros2Context as Ros2Context
from dorad.ros2.api.context import Ros2Transport as Ros2Transport
from dorad.ros2.api.node import Ros2Node as Ros2Node
from dorad.ros2.api.node import Ros2NodeOptions as Ros2NodeOptions
from dorad.ros2.api.services import Ros2ServiceClient as Ros2ServiceClient
from dorad.ros2.api.services import Ros2ServiceServer as Ros2ServiceServer
from dorad.ros2.api.topics import Ros2Durability as Ros2Durability
from dorad.ros2.api.topics import Ros2Liveliness as Ros2Liveliness
from dorad.ros2.api.topics import Ros2Publisher as Ros2Publisher
from dorad.ros2.api.topics import Ros2QosPolicies as Ros2QosPolicies
from dorad.ros2.api.topics import Ros2Subscription as Ros2Subscription
from dorad.ros2.api.topics import Ros2Topic as Ros2Topic
