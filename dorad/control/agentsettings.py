"""Sections of /etc/dorad/dorad.toml for the agent: what the robot takes, and what it uploads.

dorad checks them with the rest of the file. The agent reads `[agent]` whenever it is to take
something, and reports it, so that the coordinator knows beforehand what would be refused.
`[incidents]` bounds what the robot uploads of its incidents; without it nothing is uploaded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dorad.control.errors import ControlError
from dorad.control.messages.agent import MAX_PATTERNS, PATTERN, Accepts
from dorad.dataflow.errors import TextError
from dorad.dataflow.problems import Problems
from dorad.dataflow.sizes import parse_size
from dorad.dataflow.toml import read_section

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dorad.control.messages import Share
    from dorad.dataflow.fields import Fields

SYSTEM_FILE = Path("/etc/dorad/dorad.toml")
SECTION = "agent"
INCIDENTS_SECTION = "incidents"

MIN_RATE = 4096
"""Bytes a second, at least: the coordinator waits 20 s for a sign of life."""
MIN_PER_DAY = 1 << 20
"""Bytes of the smallest budget."""

MAX_PROBLEM = 300
"""Characters of a mistake in the file that are reported."""

_ENDPOINT = re.compile(r"[a-z]{1,10}/(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<v4>[0-9.]+)):[0-9]{1,5}")


def read_agent(block: Fields) -> Accepts:
    """Return the settings of the section."""

    def texts(key: str, check: Callable[[str], object]) -> list[str] | None:
        if not block.has(key):
            return None
        patterns = list(block.texts(key, check))
        if len(patterns) > MAX_PATTERNS:
            block.problems.error(block.name_of(key), f"has more than {MAX_PATTERNS} entries")
        return patterns

    inline = block.flag("inline")
    return Accepts(
        inline=True if inline is None else inline,
        nodes=texts("nodes", _node_pattern),
        params=texts("params", _node_pattern),
        max_param=block.checked("max_param", parse_size, None),
        peers=texts("peers", _machine_pattern),
        networks=texts("networks", _network),
    )


@dataclass(frozen=True, slots=True)
class UploadSettings:
    """What a robot may send of its incidents, in bytes."""

    per_day: int
    """In any 24 hours."""
    rate: int = 1 << 20
    """A second."""


def read_incidents(block: Fields) -> UploadSettings | None:
    """Return the settings of the section; None after a mistake, which is in `block`'s problems."""
    per_day, rate = block.size("per_day"), block.size("rate")
    for name, value, least in (("per_day", per_day, MIN_PER_DAY), ("rate", rate, MIN_RATE)):
        if value is not None and value < least:
            block.problems.error(block.name_of(name), f"must be at least {least} bytes")
    if per_day is None:
        if not block.has("per_day"):
            hint = 'for instance `per_day = "500MB"`'
            block.problems.error(block.owner, "needs `per_day`, the bytes of 24 hours", hint)
        return None
    return UploadSettings(per_day) if rate is None else UploadSettings(per_day, rate)


def load_incidents(path: Path) -> UploadSettings | None:
    """Return what the robot with this file uploads; None for nothing.

    Raises:
        ControlError: the file cannot be read, or the section has mistakes.
    """
    problems = Problems(str(path))
    if not path.exists():
        return None
    settings = None
    if (block := read_section(path, INCIDENTS_SECTION, problems)) is not None:
        settings = read_incidents(block)
        block.finish()
    if problems.errors:
        raise ControlError("refused", str(problems.errors[0])[:MAX_PROBLEM])
    return settings


def read_accepts(path: Path) -> Accepts:
    """Return what the robot with this file takes; all without the file, or without the section.

    After a mistake it takes nothing: the line that forbids something may be the one that has it.
    """
    problems = Problems(str(path))
    try:
        path.stat()
    except FileNotFoundError:
        return Accepts()
    except OSError as error:
        problems.at(0, 0, f"cannot be read: {error.strerror}")
    block = None if problems.errors else read_section(path, SECTION, problems)
    accepts = Accepts()
    if block is not None:
        accepts = read_agent(block)
        block.finish()
    if problems.errors:
        return Accepts(problem=str(problems.errors[0])[:MAX_PROBLEM])
    return accepts


def refusals(
    accepts: Accepts, dataflow: str, nodes: Iterable[str], *, inline: bool = False
) -> dict[str, str]:
    """Return why a robot does not run nodes of a dataflow, by node."""
    if accepts.problem:
        why = _unclear(accepts)
    elif inline and not accepts.inline:
        why = f"it runs only signed releases: {_key('inline = false')}"
    else:
        return {
            node: f"{_key('nodes')} does not have `{dataflow}/{node}`"
            for node in nodes
            if not _allows(accepts.nodes, dataflow, node)
        }
    return dict.fromkeys(nodes, why)


def refusal(
    accepts: Accepts,
    dataflow: str,
    nodes: Iterable[str],
    params: Mapping[str, Any],
    share: Share | None = None,
    *,
    inline: bool = False,
) -> str:
    """Return why a robot does not take a dataflow with these nodes; empty if it does.

    `params` are by `node/name`, `share` has the machines.
    """
    reasons = refusals(accepts, dataflow, nodes, inline=inline).values()
    if not reasons and accepts.problem:
        return _unclear(accepts)
    return next(
        iter((*reasons, *_of_params(accepts, dataflow, params), *_of_peers(accepts, share))), ""
    )


def check(accepts: Accepts, path: Path, why: str) -> None:
    """Raise ControlError if there is a reason why the robot with this file refuses something."""
    if why:
        hint = f"on the robot, correct {path} there" if accepts.problem else f"{path} on the robot"
        raise ControlError("refused", f"this robot refuses: {why}", hint)


def _of_params(accepts: Accepts, dataflow: str, params: Mapping[str, Any]) -> Iterator[str]:
    for name, value in params.items():
        node = name.partition("/")[0]
        if not _allows(accepts.params, dataflow, node):
            yield f"{_key('params')} does not have `{dataflow}/{node}`"
        size = 0 if accepts.max_param is None else len(msgspec.json.encode(value))
        if accepts.max_param is not None and size > accepts.max_param:
            bound = _key(f"max_param = {accepts.max_param}")
            yield f"the value of `{dataflow}/{name}` has {size} bytes: {bound}"


def _of_peers(accepts: Accepts, share: Share | None) -> Iterator[str]:
    if share is None:
        return
    others = {*share.placement.values(), *share.connect_to} - {share.machine}
    for machine in sorted(others) if accepts.peers is not None else ():
        if not any(fnmatchcase(machine, pattern) for pattern in accepts.peers or ()):
            yield f"{_key('peers')} does not have `{machine}`"
    for endpoint in share.connect if accepts.networks is not None else ():
        if not any(_is_in(endpoint, network) for network in accepts.networks or ()):
            yield f"{_key('networks')} does not have `{endpoint}`"


def _unclear(accepts: Accepts) -> str:
    return f"it does not say what it takes: {accepts.problem}"


def _allows(patterns: list[str] | None, dataflow: str, node: str) -> bool:
    return patterns is None or any(
        fnmatchcase(dataflow, of_dataflow) and fnmatchcase(node, of_node)
        for of_dataflow, _, of_node in (pattern.partition("/") for pattern in patterns)
    )


def _is_in(endpoint: str, network: str) -> bool:
    """Return True if an endpoint has an address, no name, and that is in a network."""
    match = _ENDPOINT.fullmatch(endpoint)
    try:
        return match is not None and ip_address(match["v6"] or match["v4"]) in ip_network(network)
    except ValueError:
        return False


def _key(key: str) -> str:
    return f"`{key}` in [agent] of its dorad.toml"


def _node_pattern(text: str) -> None:
    if not re.fullmatch(f"{PATTERN}/{PATTERN}", text):
        raise TextError(
            f"`{text[:100]}` names no node", "write `DATAFLOW/NODE`; `*` stands for any characters"
        )


def _machine_pattern(text: str) -> None:
    if not re.fullmatch(PATTERN, text):
        raise TextError(f"`{text[:100]}` names no machine", "write its id in the fleet, or `*`")


def _network(text: str) -> None:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise TextError(f"`{text[:100]}` is no network: {error}", "write `10.1.0.0/16`") from None
    if str(network) != text:
        raise TextError(f"`{text[:100]}` is no network", f"write `{network}`")
