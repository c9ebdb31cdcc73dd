"""The attributes of everything on this machine, of each node, and of what is no node's."""

from __future__ import annotations

import platform
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from dorad import __version__

SCOPE = InstrumentationScope("dorad", __version__)


def base_resource(environ: Mapping[str, str]) -> Resource:
    """Return the attributes of everything on this machine; `OTEL_RESOURCE_ATTRIBUTES` adds some."""
    attributes = {"host.name": socket.gethostname(), "host.arch": platform.machine()}
    with suppress(OSError):
        attributes["host.id"] = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    if robot := environ.get("DORA_ROBOT_ID"):
        attributes["dora.robot.id"] = robot
    # A name of the user's environment is not that of each node.
    return Resource(attributes).merge(
        Resource({k: v for k, v in Resource.create().attributes.items() if k != "service.name"})
    )


class Resources:
    """The resource of each node: what all its metrics and log lines have in common."""

    def __init__(self, base: Resource) -> None:
        self._base = base
        self._of_nodes: dict[tuple[str, str, bool], Resource] = {}
        self.machine = base.merge(Resource({"service.name": "dorad"}))
        """The resource of what is no node's."""

    def of(
        self, dataflow: str, name: str | None, node: str | None, *, remote: bool = False
    ) -> Resource:
        """Return the resource of a node of a dataflow; None stands for the daemon.

        That of a `remote` node, on another machine, has nothing of this one.
        """
        key = (dataflow, node or "dorad", remote)
        known = self._of_nodes.get(key)
        if known is None:
            attributes = {
                "service.name": key[1],
                "service.namespace": name or dataflow,
                "service.instance.id": f"{dataflow}/{key[1]}",
                "dora.dataflow.id": dataflow,
            }
            base = Resource({}) if remote else self._base
            known = self._of_nodes[key] = base.merge(Resource(attributes))
        return known

    def forget(self, dataflows: Iterable[str]) -> None:
        """Forget the nodes of all dataflows but these."""
        kept = set(dataflows)
        self._of_nodes = {key: each for key, each in self._of_nodes.items() if key[0] in kept}
