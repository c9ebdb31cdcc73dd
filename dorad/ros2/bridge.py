"""The bridge's process: a node of the dataflow, and a node of ROS 2.

The executor of rclpy runs in the main thread, a second thread receives from the dataflow. It runs
in the Python that `dorad.ros2.start` has chosen.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from dorad.heap import keep_freed
from dorad.ros2.dataflow import Dataflow
from dorad.ros2.definitions import DefinitionError, Definitions
from dorad.ros2.lastsent import PAUSE_S, Settling, settle
from dorad.ros2.leftovers import remove_leftovers
from dorad.ros2.names import SIM_TIME, ros_name
from dorad.ros2.start import CONFIG
from dorad.ros2.topics import TopicReader, TopicWriter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.node.events import Event

_log = logging.getLogger(__name__)

DISCOVERY_S = 1.0
"""How long a start waits until each topic has a peer, so that the first messages get through."""
CHECK_S = 0.5
"""How often the endpoints look for peers that have come or gone."""
_KEPT = 64 << 20


class Endpoint(Settling, Protocol):
    """One topic, service or action of a bridge."""

    def has_peer(self) -> bool:
        """Return True if what the dataflow sends gets through, or something can come."""

    def open(self) -> None:
        """Begin to pass messages to the dataflow, which is ready now."""

    def take(self, event: Event) -> None:
        """Pass on a message of an input; called in the dataflow's thread."""

    def check(self) -> None:
        """Look for what has changed without a message; called every CHECK_S."""

    def interrupted(self, why: str) -> None:
        """Give up what a node of the dataflow was to answer, for it has ended or restarted."""

    def close(self) -> None:
        """Report the counts, and leave the graph."""


def main() -> int:
    """Bridge until the dataflow stops this node; return the exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s: %(message)s")
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    keep_freed(_KEPT)
    config = json.loads(os.environ[CONFIG])
    remove_leftovers()
    try:
        # SIGTERM ends the process as it ends any node.
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        try:
            failed = Bridge(config).run()
        finally:
            rclpy.shutdown()
    except DefinitionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except RuntimeError as error:  # of rcl, or of Node()
        print(f"error: {str(error).partition(chr(10))[0]}", file=sys.stderr)
        return 1
    remove_leftovers()
    if failed:
        print("error: messages did not get through, see the warnings above", file=sys.stderr)
    return int(failed)


class Bridge:
    """The endpoints of one `ros2` block."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Create the node of ROS 2 and its publishers. Raises DefinitionError, RuntimeError."""
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.parameter import Parameter
        from rclpy.task import Future

        definitions = Definitions.of(os.environ)
        node_id = json.loads(os.environ["DORA_NODE_CONFIG"])["node_id"]
        self._ros = rclpy.create_node(
            config["node_name"] or ros_name(node_id),
            namespace=config["namespace"],
            enable_rosout=False,
            start_parameter_services=False,
            parameter_overrides=[Parameter(SIM_TIME, value=config["use_sim_time"])],
        )
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._ros)
        self._dataflow = Dataflow()
        self._done: Any = Future()
        self._failure: BaseException | None = None
        self._has_twin = False
        self._endpoints: list[Endpoint] = []
        self._by_input: dict[str, Endpoint] = {}
        own: dict[str, list[TopicWriter]] = {}
        # What the bridge publishes on a topic does not come back: publishers are first.
        for endpoint in sorted(config["endpoints"], key=lambda each: each["kind"] == "subscribe"):
            made: Endpoint
            if endpoint["kind"] == "publish":
                writer = made = TopicWriter(self._ros, endpoint, definitions, self._dataflow)
                own.setdefault(writer.title, []).append(writer)
            elif endpoint["kind"] == "subscribe":
                made = TopicReader(self._ros, endpoint, definitions, self._dataflow, own)
            else:
                made = _call(endpoint)(self._ros, endpoint, definitions, self._dataflow)
            self._endpoints.append(made)
            self._by_input |= dict.fromkeys(endpoint["inputs"], made)

    def run(self) -> bool:
        """Attach to the dataflow, and pass messages on until it stops this node.

        Return whether something failed to get through; see `Dataflow.failed`.

        Raises:
            RuntimeError: there is no dataflow, or it could not start.
        """
        from rclpy.clock import Clock, ClockType

        deadline = time.monotonic() + DISCOVERY_S
        while not all(each.has_peer() for each in self._endpoints) and time.monotonic() < deadline:
            self._spin(PAUSE_S)
        for each in self._endpoints:
            if not each.has_peer():
                _log.info("%s has no peer yet", each.title)
        self._dataflow.attach()
        # What arrived before the other nodes are ready would have no place to go.
        for each in self._endpoints:
            each.open()
        thread = threading.Thread(target=self._receive, name="dataflow", daemon=True)
        thread.start()
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._ros.create_timer(CHECK_S, self._check, clock=clock)
        self._executor.spin_until_future_complete(self._done)
        thread.join()
        self._check()
        for each in self._endpoints:
            each.interrupted("the dataflow has ended")
        settle(self._endpoints, self._spin)
        for each in self._endpoints:
            each.close()
        self._dataflow.close()
        self._ros.destroy_node()
        if self._failure is not None:
            raise self._failure
        return self._dataflow.failed

    def _spin(self, timeout_s: float) -> None:
        self._executor.spin_once(timeout_sec=timeout_s)

    def _warn_of_twin(self) -> None:
        """Warn once if another node in the domain has the same name, as ROS 2 allows."""
        me = (self._ros.get_name(), self._ros.get_namespace())
        if not self._has_twin and self._ros.get_node_names_and_namespaces().count(me) > 1:
            self._has_twin = True
            _log.warning(
                "another node of this domain has the name %s: give one of them a `node_name`, or"
                " the robots different domains",
                self._ros.get_fully_qualified_name(),
            )

    def _check(self) -> None:
        self._warn_of_twin()
        for each in self._endpoints:
            each.check()

    def _receive(self) -> None:
        """Pass on what the dataflow sends, until it stops this node."""
        try:
            for event in self._dataflow.events():
                match event["type"]:
                    case "INPUT" if endpoint := self._by_input.get(event["id"]):
                        endpoint.take(event)
                    case "INPUT_CLOSED" if endpoint := self._by_input.get(event["id"]):
                        why = f"input {event['id']} is closed: nothing answers any more"
                        endpoint.interrupted(why)
                    case "NODE_FAILED" | "NODE_RESTARTED":
                        for each in self._endpoints:
                            each.interrupted(f"node {event['id']} has ended")
                    case "STOP":
                        break
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self._failure = error
        finally:
            self._done.set_result(None)


def _call(endpoint: Mapping[str, Any]) -> Any:
    """Return the class of a service or an action."""
    from dorad.ros2.actionclient import ActionClient
    from dorad.ros2.actionserver import ActionServer
    from dorad.ros2.services import ServiceClient, ServiceServer

    return {
        "service_client": ServiceClient,
        "service_server": ServiceServer,
        "action_client": ActionClient,
        "action_server": ActionServer,
    }[endpoint["kind"]]
