"""`Ros2Node`: a node of ROS 2 with its topics and parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dorad.ros2.api.actionclient import Ros2ActionClient
from dorad.ros2.api.actionserver import Ros2ActionServer
from dorad.ros2.api.runtime import plain_errors
from dorad.ros2.api.services import Ros2ServiceClient, Ros2ServiceServer
from dorad.ros2.api.topics import Ros2Publisher, Ros2QosPolicies, Ros2Subscription, Ros2Topic
from dorad.ros2.lastsent import LastAnswer
from dorad.ros2.names import SIM_TIME
from dorad.ros2.objects import ros_class
from dorad.ros2.qos import to_rclpy

if TYPE_CHECKING:
    from dorad.ros2.api.runtime import Runtime
    from dorad.ros2.definitions import Definitions

    _Call = tuple[str, Any, Any, Any]

_SINGLE = (bool, int, float, str)
_MAX_INT = 2**63
_CALL_DEPTH = 10
"""The least length of queues for requests and responses, of which none may be lost."""


class Ros2NodeOptions:
    """Options of a node: `rosout` publishes its log lines of rclpy on /rosout."""

    def __init__(self, rosout: bool | None = None) -> None:
        if rosout is not None and not isinstance(rosout, bool):
            raise TypeError(f"rosout must be a bool, got {type(rosout).__name__}")
        self.rosout = bool(rosout)


class _Parameters:
    """The parameters of a node, which rclpy serves: each request to set one is answered."""

    def __init__(self, ros: Any) -> None:
        self.title = f"the parameters of {ros.get_fully_qualified_name()}"
        self._last = LastAnswer()
        ros.add_post_set_parameters_callback(lambda _: self._last.sent())

    def settled(self) -> bool:
        """Return True if the answer to the last one that was set has been sent."""
        return self._last.settled()

    def close(self) -> None:
        """Do nothing: there are no counts."""


class Ros2Node:
    """A node of ROS 2, from `Ros2Context.new_node`."""

    def __init__(
        self,
        runtime: Runtime,
        definitions: Definitions,
        name: str,
        namespace: str,
        options: Ros2NodeOptions,
        parameters: dict[str, Any] | None,
    ) -> None:
        """See `Ros2Context.new_node`."""
        _check(name, "name", str)
        _check(namespace, "namespace", str)
        _check(options, "options", Ros2NodeOptions)
        values = _checked_parameters({} if parameters is None else parameters)
        sim_time = values.pop(SIM_TIME, False)
        self._runtime = runtime
        self._definitions = definitions
        with plain_errors():
            self._ros = runtime.create_node(
                name, namespace, rosout=options.rosout, sim_time=sim_time
            )
            try:
                for key, value in values.items():
                    self._ros.declare_parameter(key, value)
            except BaseException:
                self._ros.destroy_node()
                raise
        runtime.at_end(_Parameters(self._ros))

    def create_topic(self, name: str, message_type: str, qos: Ros2QosPolicies) -> Ros2Topic:
        """Return the topic `name` with messages of the type `package/Name` or `package::Name`.

        Raises:
            RuntimeError: the type is not installed, or a name is invalid.
            TypeError: an argument has another type.
        """
        _check(name, "name", str)
        _check(message_type, "message_type", str)
        _check(qos, "qos", Ros2QosPolicies)
        type_name = _type_name(message_type, "std_msgs/UInt8")
        with plain_errors():
            message = self._definitions.message(type_name)
            kind = ros_class(type_name, "msg")
            return Ros2Topic(self._ros.resolve_topic_name(name), message, kind, qos)

    def create_publisher(
        self, topic: Ros2Topic, qos: Ros2QosPolicies | None = None
    ) -> Ros2Publisher:
        """Return a publisher of a topic; `qos` replaces that of the topic.

        Raises:
            RuntimeError: rclpy refuses it.
            TypeError: an argument has another type.
        """
        _check(topic, "topic", Ros2Topic)
        if qos is not None:
            _check(qos, "qos", Ros2QosPolicies)
        publisher = Ros2Publisher(self._ros, topic, qos)
        self._runtime.at_end(publisher)
        return publisher

    def create_subscription(
        self, topic: Ros2Topic, qos: Ros2QosPolicies | None = None
    ) -> Ros2Subscription:
        """Return a subscription of a topic; `qos` replaces that of the topic.

        Raises:
            RuntimeError: rclpy refuses it.
            TypeError: an argument has another type.
        """
        _check(topic, "topic", Ros2Topic)
        if qos is not None:
            _check(qos, "qos", Ros2QosPolicies)
        subscription = Ros2Subscription(self._ros, topic, qos)
        self._runtime.at_end(subscription)
        return subscription

    def create_service_client(
        self, service_name: str, service_type: str, qos: Ros2QosPolicies
    ) -> Ros2ServiceClient:
        """Return a client of a service, once it has a server, at most 20 seconds from now.

        Raises:
            RuntimeError: there is no server, the type is not installed, a name is invalid, or the
                policies are not reliable.
            TypeError: an argument has another type.
        """
        parts = self._resolved("service", service_name, service_type, qos)
        return Ros2ServiceClient(self._ros, *parts)

    def create_service_server(
        self, service_name: str, service_type: str, qos: Ros2QosPolicies
    ) -> Ros2ServiceServer:
        """Return the server of a service; poll its `take_request`.

        Raises:
            RuntimeError: the type is not installed, a name is invalid, or the policies are not
                reliable.
            TypeError: an argument has another type.
        """
        parts = self._resolved("service", service_name, service_type, qos)
        server = Ros2ServiceServer(self._ros, *parts)
        self._runtime.at_end(server)
        return server

    def create_action_client(
        self, action_name: str, action_type: str, qos: Ros2QosPolicies
    ) -> Ros2ActionClient:
        """Return a client of an action; its `send_goal` waits for a server.

        Raises what `create_service_server` does.
        """
        parts = self._resolved("action", action_name, action_type, qos)
        client = Ros2ActionClient(self._ros, *parts)
        self._runtime.at_end(client)
        return client

    def create_action_server(
        self, action_name: str, action_type: str, qos: Ros2QosPolicies
    ) -> Ros2ActionServer:
        """Return the server of an action; poll its `take_goal` and `take_cancel`.

        Raises what `create_service_server` does.
        """
        parts = self._resolved("action", action_name, action_type, qos)
        server = Ros2ActionServer(self._ros, *parts)
        self._runtime.at_end(server)
        return server

    def _resolved(self, what: str, name: str, kind: str, qos: Ros2QosPolicies) -> _Call:
        """Return what the client or the server of a service or an action is made of."""
        _check(name, f"{what}_name", str)
        _check(kind, f"{what}_type", str)
        _check(qos, "qos", Ros2QosPolicies)
        type_name = _type_name(kind, "std_srvs/Trigger")
        is_service = what == "service"
        lookup = self._definitions.service if is_service else self._definitions.action
        with plain_errors():
            messages = lookup(type_name)
            ros_kind = ros_class(type_name, "srv" if is_service else "action")
            return self._ros.resolve_service_name(name), ros_kind, messages, _profile(what, qos)

    def now_ns(self) -> int:
        """Return the time of ROS 2, in ns.

        While the parameter `use_sim_time` is true, it is that of /clock, and 0 before its first
        message.
        """
        return int(self._ros.get_clock().now().nanoseconds)

    def set_parameter(self, name: str, value: Any) -> None:
        """Set a parameter that the node has, to a value of its type.

        A value is a bool, an int of 64 bits, a float, a str, bytes, or a list of one of the first
        four that is not empty.

        Raises:
            RuntimeError: there is no such parameter, or it has another type.
        """
        from rclpy.parameter import Parameter

        checked = parameter_value(name, value)
        if not self._ros.has_parameter(name):
            raise RuntimeError(f"the node has no parameter `{name}`")
        with plain_errors():
            (result,) = self._ros.set_parameters([Parameter(name, value=checked)])
        if not result.successful:
            raise RuntimeError(f"parameter `{name}` cannot be set: {result.reason}")

    def get_parameter(self, name: str) -> Any:
        """Return the value of a parameter, None if there is none."""
        if not self._ros.has_parameter(name):
            return None
        with plain_errors():
            value = self._ros.get_parameter(name).value
        if isinstance(value, list | tuple) and value and isinstance(value[0], bytes):
            return b"".join(value)
        return value if value is None or isinstance(value, _SINGLE) else list(value)

    def list_parameters(self) -> list[str]:
        """Return the names of all parameters, also of those that each node of ROS 2 has."""
        return [*self._ros.list_parameters([], 0).names]

    def has_parameter(self, name: str) -> bool:
        """Return True if the node has a parameter."""
        return bool(self._ros.has_parameter(name))


def _check(value: Any, name: str, kind: type[Any]) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, got {type(value).__name__}")


def _type_name(text: str, example: str) -> str:
    """Return a type as `package/Name`. Raises RuntimeError."""
    package, separator, base = text.replace("::", "/").partition("/")
    if not (package and separator and base) or "/" in base:
        raise RuntimeError(f"`{text}` is not a type: write `package/Name`, such as `{example}`")
    return f"{package}/{base}"


def _profile(what: str, policies: Ros2QosPolicies) -> Any:
    """Return the policies of a service or an action for rclpy. Raises RuntimeError."""
    profile = policies.profile
    if not profile.reliable:
        raise RuntimeError(f"the qos of a {what} is Ros2QosPolicies(reliable=True)")
    return to_rclpy(replace(profile, depth=profile.depth and max(profile.depth, _CALL_DEPTH)))


def _checked_parameters(parameters: Any) -> dict[str, Any]:
    _check(parameters, "parameters", dict)
    for key in parameters:
        _check(key, "the name of a parameter", str)
    if not isinstance(parameters.get(SIM_TIME, False), bool):
        raise RuntimeError(f"parameter `{SIM_TIME}` must be a bool")
    return {key: parameter_value(key, value) for key, value in parameters.items()}


def parameter_value(name: str, value: Any) -> Any:
    """Return the value as rclpy takes it, which would accept a bool among integers.

    Raises:
        RuntimeError: ROS 2 has no parameters of its type.
    """
    if isinstance(value, bytes):
        return [value[at : at + 1] for at in range(len(value))]
    items = value if isinstance(value, list) else [value]
    if not items:
        raise RuntimeError(f"parameter `{name}`: the items of an empty list have no type")
    kind = type(items[0])
    if kind not in _SINGLE:
        raise RuntimeError(
            f"parameter `{name}`: {kind.__name__} is neither bool, int, float, str, bytes"
            " nor a list of one of them"
        )
    for item in items:
        if type(item) is not kind:
            raise RuntimeError(
                f"parameter `{name}`: all items of a list have one type,"
                f" not {kind.__name__} and {type(item).__name__}"
            )
        if kind is int and not -_MAX_INT <= item < _MAX_INT:
            raise RuntimeError(f"parameter `{name}`: {item} does not fit into 64 bits")
    return value
