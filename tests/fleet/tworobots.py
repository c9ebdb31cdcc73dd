"""Two robots with real daemons and agents, under one coordinator, for tests of commands."""

from pathlib import Path

from tests.cli.dora import dora
from tests.fleet.fakerobot import DEADLINE_S
from tests.fleet.test_enrol import Machine
from tests.harness.ports import free_port
from tests.harness.waiting import wait_until

ZONES = {"arm1": "hall", "arm2": "lab"}


class TwoRobots:
    """`arm1` and `arm2`, and an operator's folder with their cluster file."""

    def __init__(self, site, stack, folder: Path, daemons) -> None:
        self.site = site
        self.folder = folder
        self.daemons = daemons
        self.machines = {}
        for name, each in zip(ZONES, daemons, strict=True):
            self.machines[name] = Machine(stack, socket=each.paths.control)
            site.fleet.add(name, self.machines[name].robot)
        lines = [f"coordinator: {{addr: 127.0.0.1, port: {site.port}}}", "machines:"]
        for name, port in site.fleet.ports.items():
            lines += [
                f"  - {{id: {name}, host: 127.0.0.1, port: {port}, user: root,",
                f"     labels: {{zone: {ZONES[name]}}},",
                f"     zenoh_addr: 127.0.0.1, zenoh_port: {free_port()}}}",
            ]
        self.file = folder / "cluster.yml"
        self.file.write_text("\n".join(lines) + "\n")
        code, _, err = site.run("up", str(self.file))
        assert code == 0, err

    def dora(self, *words: str):
        return dora(*words, cwd=self.folder)

    def until(self, holds) -> None:
        wait_until(holds, deadline_s=2 * DEADLINE_S)
