"""The same dataflow on robots by ansible-playbook, with `serial` and a check after each batch.

ansible-core comes from PyPI into its own environment. It runs on this machine, in the network
namespace of the fleet.
"""

import os
import subprocess
import sys
from pathlib import Path

from hwtests.fleet.enrolled import NODES, EnrolledFleet
from hwtests.fleet.releasing import GRIP, TEXT
from hwtests.robots.network import FLEET
from hwtests.robots.shell import run

VENV = Path(__file__).parents[2] / ".venv-ansible"
PLACE = "/opt/arm"
"""Of the dataflow on robots."""
HEALTHY_S = 2
"""How long all nodes must run after the change, as in our rollout."""
CONFIG = """\
[defaults]
host_key_checking = False
forks = 50
[ssh_connection]
pipelining = True
ssh_args = -o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=5
"""
PLAYBOOK = f"""\
- hosts: robots
  gather_facts: false
  serial: SERIAL
  max_fail_percentage: 40
  tasks:
    - name: copy the files
      ansible.builtin.copy: {{src: arm/, dest: {PLACE}/, mode: preserve}}
      notify: restart the node
    - name: start the dataflow
      ansible.builtin.shell: |
        dora list | grep -q Running ||
            dora start {PLACE}/dataflow.yml --name arm --detach --enable
    - name: now
      ansible.builtin.meta: flush_handlers
    - name: check that all nodes run, and keep running
      ansible.builtin.shell: |
        dora node list --format json >/tmp/before
        test $(grep -ci '"status": *"running"' /tmp/before) = 3
        grep -o '"pid": *[0-9]*' /tmp/before >/tmp/pids
        sleep {HEALTHY_S}
        dora node list --format json | grep -o '"pid": *[0-9]*' | cmp - /tmp/pids
  handlers:
    - name: restart the node
      ansible.builtin.shell: "! dora list | grep -q Running || dora node restart -d arm grip"
"""


def prepare_environment() -> Path:
    """Install ansible-core into its own environment once; return its ansible-playbook."""
    found = VENV / "bin/ansible-playbook"
    if not found.exists():
        run([sys.executable, "-m", "venv", str(VENV)], timeout=120)
        pip = [str(VENV / "bin/pip"), "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, "ansible-core"], timeout=300)
    return found


class Ansible:
    """A playbook, its inventory, and the files that it copies, in one folder."""

    def __init__(self, fleet: EnrolledFleet, folder: Path, serial: list[int]) -> None:
        self._fleet = fleet
        self._folder = folder
        self._program = prepare_environment()
        key = folder / "key"
        key.write_text(fleet.server.exec("cat", "/root/.ssh/id_ed25519"))
        key.chmod(0o600)
        more = f"ansible_user=root ansible_ssh_private_key_file={key}"
        hosts = [
            f"{name} ansible_host={robot.address} {more}" for name, robot in fleet.robots.items()
        ]
        (folder / "inventory").write_text("\n".join(["[robots]", *hosts]) + "\n")
        (folder / "ansible.cfg").write_text(CONFIG)
        (folder / "play.yml").write_text(PLAYBOOK.replace("SERIAL", str(serial)))
        for script in ("count.py", "check.py"):
            (folder / "arm").mkdir(exist_ok=True)
            (folder / "arm" / script).write_bytes((NODES / script).read_bytes())
        (folder / "arm/dataflow.yml").write_text(TEXT)

    @property
    def version(self) -> str:
        """The version of ansible-core."""
        first = run([str(self._program), "--version"]).splitlines()[0]
        return first.split("core ")[-1].rstrip("]")

    def change(self, grip: str) -> str:
        """Let the node `grip` do something else; return what its file has now."""
        text = GRIP % grip
        (self._folder / "arm/grip.py").write_text(text)
        return text

    def play(self) -> subprocess.Popen[str]:
        """Run the playbook in the background."""
        space = self._fleet.bed.network.namespace(FLEET)
        command = ["ip", "netns", "exec", space, str(self._program), "-i", "inventory", "play.yml"]
        environ = {**os.environ, "HOME": str(self._folder), "LC_ALL": "C.UTF-8"}
        return subprocess.Popen(
            command,
            cwd=self._folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
