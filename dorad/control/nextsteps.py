"""What to do about a finding: the next step for people, with commands to paste."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dorad.control.messages import Finding

DISKS = ("disk-full", "disk-fills")
"""Causes of findings about disks, whose subject is a folder."""


def next_step(finding: Finding, *, robot: str = "", login: str = "") -> str:
    """Return the next step.

    It is made of the names in the finding, never of its texts, which may come from a robot.
    `robot` is where it is, for a fleet, and `login` the command that logs in there.
    """
    there = f"{login} " if login else ""
    if finding.dataflow is None:
        if finding.cause in DISKS:
            folder = shlex.quote(finding.subject)
            return (
                f"`{there}du -xh --max-depth 2 {folder}` shows what takes the room; limit or "
                "remove recordings, and `dora clean` forgets ended dataflows"
            )
        return f"`{there}journalctl -u dorad` shows more"
    dataflow = shlex.quote(f"{robot}/{finding.dataflow}" if robot else finding.dataflow)
    node = "" if finding.node is None else f" {shlex.quote(finding.node)}"
    logs = f"`dora logs {dataflow}{node}`"
    match finding.cause:
        case "old-secret":
            return f"`dora node restart{node} -d {dataflow}` gives it the new one"
        case "output-slow":
            return f"`dora node info{node} -d {dataflow}` shows its processor time; see {logs}"
        case "input-drops":
            return (
                f"make{node} faster, or set `queue_size: 1` for an input that only needs the "
                f"newest message; `dora node info{node} -d {dataflow}` shows what takes its time"
            )
        case "link-loses":
            topic = shlex.quote(finding.subject.removeprefix(f"{finding.dataflow}/"))
            return (
                f"`dora topic info {topic} -d {dataflow}` shows what the line takes: send less, "
                "with `max_rate_hz` or smaller messages, or improve the network"
            )
        case "log-flood":
            return f"mend what {logs} shows, or set `min_log_level` of the node"
        case "memory-grows":
            return (
                f"look for what{node} never gives back; until then `resources: {{memory_max: ...}}`"
                f" keeps other nodes safe, and `dora node restart{node} -d {dataflow}` frees it"
            )
        case _:
            return f"see {logs}"
