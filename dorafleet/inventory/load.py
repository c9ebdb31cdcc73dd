"""Read a cluster.yml, and return a checked cluster or all problems at once.

The keys are those of dora 1.x. Unknown keys are problems, as in dora.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from dorad.dataflow.deploy import read_amounts
from dorad.dataflow.document import read_document
from dorad.dataflow.errors import DataflowError, TextError
from dorad.dataflow.fields import Fields
from dorad.dataflow.problems import Problems, in_order
from dorad.dataflow.text import read_text
from dorafleet.inventory import syntax
from dorafleet.inventory.model import (
    COORDINATOR_PORT,
    DAEMON_PORT,
    ZENOH_PORT,
    Address,
    Cluster,
    Coordinator,
    Machine,
)

if TYPE_CHECKING:
    from dorad.dataflow.value import Value

WHAT = "a cluster's YAML file"
START = "a cluster starts with `coordinator:` and `machines:`"
_MACHINE = "a mapping with `id` and `host`"
_MAX_PORT = 65535
_TARGET = "how ssh reaches it: a name, an address, or a `Host` of ~/.ssh/config"
_NO_PORT = "accepted, but nothing uses it: dorad listens on a Unix socket"


def load(path: str | Path) -> Cluster:
    """Read and check the file at `path`.

    Raises:
        DataflowError: it has problems, sorted by position; or it is missing, a directory,
            unreadable, too large or not UTF-8.
    """
    problems = Problems(str(path))
    text = read_text(Path(path), problems, WHAT, pipes=True)
    if text is None:
        raise DataflowError(problems.errors)
    return parse(text, path=Path(path))


def parse(text: str, *, path: Path) -> Cluster:
    """Check the YAML in `text` as the content of `path`, which is not opened.

    Raises:
        DataflowError: it has problems, sorted by position.
    """
    problems = Problems(str(path))
    root = read_document(text, problems, START)
    if root is None:
        raise DataflowError(in_order(problems.errors))
    if not isinstance(root.data, dict):
        problems.error(root, f"a cluster is a mapping, not {root.describe()}", START)
        raise DataflowError(problems.errors)
    fields = Fields(root, problems)
    coordinator = _read_coordinator(fields)
    peer = fields.checked("zenoh_peer", syntax.endpoint, None)
    items = fields.items("machines")
    machines = [_read_machine(item, problems) for item in items]
    misspelt = fields.finish()
    for name, hint in (("coordinator", "with `addr`"), ("machines", f"a list, each {_MACHINE}")):
        if name not in misspelt and not fields.has(name):
            problems.error_in_name(fields.name_of(name), f"needs `{name}`", hint)
    named = fields.take("machines")
    if named is not None and isinstance(named.data, list) and not items:
        problems.error(named, "needs at least one machine", f"each {_MACHINE}")
    _check_ids(items, problems)
    _check_zenoh(peer, items, machines, problems)
    if peer is not None and not peer.startswith(syntax.LINKS_USE):
        problems.warn(
            fields.name_of("zenoh_peer"),
            f"no link can use `{peer}`: links have TLS",
            f"let the router listen with TLS, and write `{syntax.LINKS_USE}HOST:PORT`",
        )
    if problems.errors or coordinator is None:
        raise DataflowError(in_order(problems.errors))
    known = tuple(machine for machine in machines if machine is not None)
    return Cluster(known, coordinator, path, peer, in_order(problems.warnings))


def _read_coordinator(fields: Fields) -> Coordinator | None:
    block = fields.inside("coordinator", "a mapping with `addr`")
    if block is None or not isinstance(block.owner.data, dict):
        return None
    if not block.has("addr"):
        block.required_text("addr", "the IP address that the robots reach it at")
    addr = block.checked("addr", syntax.address, None)
    port = block.integer("port", minimum=1, maximum=_MAX_PORT)
    block.finish()
    return None if addr is None else Coordinator(addr, port or COORDINATOR_PORT)


def _read_machine(item: Value, problems: Problems) -> Machine | None:
    """Return the machine, None if it has problems, which are reported."""
    block = Fields(item, problems, _MACHINE)
    if not isinstance(item.data, dict | None):
        return None
    for name, hint in (("id", "a name of your choice"), ("host", _TARGET)):
        if not block.has(name):
            block.required_text(name, hint)
    identity = block.checked("id", syntax.machine_id, "")
    target = block.checked("host", syntax.target, "")
    user = block.checked("user", syntax.user_name, None)
    before, at, host = target.rpartition("@")
    if at and user is not None:
        problems.error(block.name_of("user"), f"`host` already names the user `{before}`")
    labels = _read_labels(block)
    port = block.integer("port", minimum=1, maximum=_MAX_PORT)
    daemon_port = block.integer("daemon_port", minimum=1, maximum=_MAX_PORT)
    zenoh_addr = block.checked("zenoh_addr", syntax.address, None)
    zenoh_port = block.integer("zenoh_port", minimum=1, maximum=_MAX_PORT)
    capacity = read_amounts(block, "capacity")
    if block.has("daemon_port"):
        problems.warn(block.name_of("daemon_port"), _NO_PORT)
    block.finish()
    if not identity or not host:
        return None
    return Machine(
        identity,
        host,
        user if user is not None else before or None,
        port,
        daemon_port or DAEMON_PORT,
        labels,
        zenoh_addr or _as_address(host),
        zenoh_port or ZENOH_PORT,
        capacity,
    )


def _read_labels(block: Fields) -> dict[str, str]:
    """Return the labels by name. Values must be text in the file, because YAML changes `1.10`."""
    labels: dict[str, str] = {}
    for name, value in block.entries("labels").items():
        try:
            syntax.label(name)
        except TextError as error:
            block.problems.error_in_name(value, error.message, error.hint)
            continue
        if not isinstance(value.data, str):
            scalar = value.text and not isinstance(value.data, dict | list)
            hint = f'write "{value.text}"' if scalar else None
            message = f"a label's value must be text, not {value.describe()}"
            block.problems.error(value, message, hint)
            continue
        try:
            labels[name] = syntax.label(value.data)
        except TextError as error:
            block.problems.text_error(value, error)
    return labels


def _check_ids(items: list[Value], problems: Problems) -> None:
    """Report ids that are given twice."""
    first: dict[str, Value] = {}
    for item in items:
        value = item.data.get("id") if isinstance(item.data, dict) else None
        if value is None or not value.text:
            continue
        if value.text in first:
            where = first[value.text].where()
            problems.error(value, f"the id `{value.text}` is given twice, first {where}")
        first.setdefault(value.text, value)


def _check_zenoh(
    peer: str | None,
    items: list[Value],
    machines: list[Machine | None],
    problems: Problems,
) -> None:
    """Report Zenoh keys that contradict each other, and warn about addresses given twice."""
    places: dict[tuple[Address, int], str] = {}
    for item, machine in zip(items, machines, strict=True):
        own = item.data if isinstance(item.data, dict) else {}
        for name in ("zenoh_addr", "zenoh_port"):
            if peer is not None and name in own and own[name].data is not None:
                problems.error_in_name(
                    own[name],
                    "cannot be given beside `zenoh_peer`",
                    "all machines connect to that peer",
                )
        if machine is None or machine.zenoh_addr is None or peer is not None:
            continue
        place = (machine.zenoh_addr, machine.zenoh_port)
        other = places.setdefault(place, machine.id)
        if other != machine.id:
            message = f"has the Zenoh address of `{other}`, {place[0]} port {place[1]}"
            problems.warn(item, message, "give one of them another `zenoh_port`")


def _as_address(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
