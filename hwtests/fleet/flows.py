"""Dataflows over several robots: one node counts, others check that all numbers come."""

from __future__ import annotations

from dataclasses import dataclass

FLOW_FILE = "/opt/flow/dataflow.yml"


@dataclass(frozen=True)
class Flow:
    """One node that counts on a machine, and a check on each of others."""

    name: str
    source: str = "arm1"
    sinks: tuple[str, ...] = ("arm2",)
    hz: int = 50
    queue: int = 100
    policy: str = "drop_oldest"
    input_options: str = ""
    """More options of the inputs of checks, such as `input_timeout: 1.0`."""

    def check(self, machine: str) -> str:
        """Return the id of the node that checks on a machine."""
        return f"check-{machine}"

    @property
    def text(self) -> str:
        """The file."""
        more = f", {self.input_options}" if self.input_options else ""
        source = f"source: count/number, queue_size: {self.queue}, queue_policy: {self.policy}"
        lines = [
            "nodes:",
            "  - id: count",
            "    path: /opt/flow/count.py",
            f"    deploy: {{machine: {self.source}}}",
            f"    inputs: {{tick: {{source: dora/timer/hz/{self.hz}, queue_size: 1000}}}}",
            "    outputs: [number]",
        ]
        for machine in self.sinks:
            lines += [
                f"  - id: {self.check(machine)}",
                "    path: /opt/flow/check.py",
                f"    deploy: {{machine: {machine}}}",
                f"    inputs: {{number: {{{source}{more}}}}}",
            ]
        return "\n".join(lines) + "\n"
