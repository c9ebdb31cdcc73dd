"""The limits of a node hold on a kernel with cgroup v2 (`make vmtest`, five minutes)."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwtests.machine import virtual
from hwtests.robots.shell import wait_until

FLOW = """\
nodes:
  - id: memory
    path: hungry.py
    inputs: {tick: dora/timer/millis/100}
    env: {HUNGRY_FOR: memory}
    resources: {memory_max: 100MB}
  - id: cpu
    path: hungry.py
    inputs: {tick: dora/timer/millis/100}
    env: {HUNGRY_FOR: cpu}
    resources: {cpu_quota: 25%}
  - id: processes
    path: hungry.py
    inputs: {tick: dora/timer/millis/100}
    env: {HUNGRY_FOR: processes}
    resources: {tasks_max: 20}
"""
TIMEOUT_S = 120.0

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def machine(
    prepared_disk: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[virtual.Machine]:
    """A virtual machine on which hungry nodes run."""
    flow = tmp_path_factory.mktemp("limits") / "limits.yml"
    flow.write_text(FLOW)
    with virtual.Machine(prepared_disk) as made:
        made.sh("systemctl enable --now dorad")
        made.push(Path(__file__).with_name("nodes") / "hungry.py", "/srv/limits/hungry.py")
        made.push(flow, "/srv/limits/limits.yml")
        made.sh("dora start /srv/limits/limits.yml --name limits --detach")
        yield made


def printed(machine: virtual.Machine, node: str) -> str:
    return machine.sh(f"journalctl --output=cat --no-pager DORA_NODE={node}")


def test_a_node_above_its_memory_limit_is_ended(machine: virtual.Machine) -> None:
    wait_until(lambda: "oom-kill" in printed(machine, "memory"), "it is ended", timeout=TIMEOUT_S)
    most = max(int(number) for number in re.findall(r"has (\d+) MiB", printed(machine, "memory")))
    print(f"\n100 MB: the node had {most} MiB of its own")
    assert 40 <= most <= 100
    assert "Running" in machine.sh("dora list")


def test_a_node_gets_no_more_cpu_than_its_limit(machine: virtual.Machine) -> None:
    wait_until(lambda: printed(machine, "cpu").count("share") > 2, "it tells", timeout=TIMEOUT_S)
    shares = [float(share) for share in re.findall(r"share ([\d.]+)", printed(machine, "cpu"))]
    print(f"\n25 %: the node had {shares}")
    assert max(shares) < 0.35


def test_a_node_gets_no_more_processes_than_its_limit(machine: virtual.Machine) -> None:
    wait_until(
        lambda: "Resource temporarily" in printed(machine, "processes"),
        "reported",
        timeout=TIMEOUT_S,
    )
    count = machine.sh("cat /sys/fs/cgroup/dorad.slice/dorad-limits-processes-*/pids.current")
    print(f"\n20 tasks: the node has {count.strip()}")
    assert int(count) <= 20


def test_the_daemon_has_real_time_rights_and_is_spared_by_the_oom_killer(
    machine: virtual.Machine,
) -> None:
    pid = machine.sh("systemctl show -P MainPID dorad").strip()
    limits = machine.sh(f"cat /proc/{pid}/limits")
    assert re.search(r"Max realtime priority +95 +95", limits)
    assert re.search(r"Max locked memory +unlimited", limits)
    assert machine.sh(f"cat /proc/{pid}/oom_score_adj").strip() == "-900"
