"""A test bed of robots: Debian 13 systems with systemd as PID 1, several on one machine, as root.

    with Testbed() as bed:
        one, two = bed.up(2)
        one.push(deb, "/root/dorad.deb")
        one.exec("apt-get", "install", "-y", "/root/dorad.deb")
        one.power_cut()
        one.start()
        bed.network.split(1, 2)

A robot has its own journal, D-Bus, machine-id, hostname, processes, /dev/shm and network. All
share the kernel of this machine, its page cache and its clock: a power cut here loses no file that
was written and not synced, and only what `hwtests.robots.clock` has prepared reads a wrong clock.
Where cgroup v1 controllers are mounted, limits of memory and CPU do nothing. pytest has fixtures
for all this in `hwtests.robots.fixtures`.
"""

from hwtests.robots.errors import RobotError
from hwtests.robots.robot import Robot
from hwtests.robots.testbed import Testbed

__all__ = ["Robot", "RobotError", "Testbed"]
