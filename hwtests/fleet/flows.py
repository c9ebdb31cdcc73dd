"""Dataflows over several robots: one node counts, others check that all numbers come."""

from dataclasses import dataclass

FLOW_FILE = "/opt/flow/dataflow.yml"


@dataclass(frozen=True)
class Flow:
    """A node `count` on one machine, and nodes `check1`, `check2`, ... on others."""

    name: str
    source: str = "arm1"
    sinks: tuple[str, ...] = ("arm2",)
    """The machine of each check."""
    hz: int = 50
    queue: int = 100
    policy: str = "drop_oldest"
    input_options: str = ""
    """More options of the inputs of checks, such as `input_timeout: 1.0`."""

    @property
    def checks(self) -> dict[str, str]:
        """The machine of each check, by the id of its node."""
        return {f"check{number}": machine for number, machine in enumerate(self.sinks, 1)}

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
        for check, machine in self.checks.items():
            lines += [
                f"  - id: {check}",
                "    path: /opt/flow/check.py",
                f"    deploy: {{machine: {machine}}}",
                f"    inputs: {{number: {{{source}{more}}}}}",
            ]
        return "\n".join(lines) + "\n"
