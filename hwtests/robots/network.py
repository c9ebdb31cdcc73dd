"""The Ethernet between robots: one switch without any way out, and faults on its cables.

    host namespace NAME-fleet 198.18.0.1 ──┐
    robot 1                  198.18.0.11 ──┤ bridge br0 in the namespace NAME-switch
    robot 2                  198.18.0.12 ──┘

Number 0 stands for the fleet namespace, where a fleet manager or a test may run.
"""

from __future__ import annotations

import json
import subprocess
import sys

from hwtests.robots import slowline
from hwtests.robots.errors import RobotError
from hwtests.robots.shell import attempt, run, wait_until

FLEET = 0
SWITCHING = ("stp_state", "0", "mcast_snooping", "0")
"""A plain, cheap switch: no spanning tree and no snooping."""


class Network:
    """The switch and its cables."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._plugged: set[int] = set()
        self._tables: set[str] = set()
        """Rules of nft, by family and name."""
        self._slow: dict[int, subprocess.Popen[str]] = {}
        """The slow line of each cable that has one."""

    def make(self) -> None:
        """Create the switch and the cable of the fleet."""
        run(["ip", "netns", "add", self.switch])
        self._ip("link", "set", "lo", "up")
        self._ip("link", "add", "br0", "type", "bridge", *SWITCHING)
        self._ip("link", "set", "br0", "up")
        self.plug(FLEET)

    def remove(self) -> None:
        """Remove all that exists of switch and cables."""
        for number in [*self._slow]:
            self._end_slow(number)
        for number in [*self._plugged]:
            attempt(["ip", "netns", "del", self.namespace(number)])
        attempt(["ip", "netns", "del", self.switch])
        self._plugged.clear()

    def plug(self, number: int) -> None:
        """Create a namespace whose eth0 is connected to the switch."""
        namespace = self.namespace(number)
        run(["ip", "netns", "add", namespace])
        self._plugged.add(number)
        inside = ["ip", "-n", namespace]
        run([*inside, "link", "set", "lo", "up"])
        peer = ["peer", "name", port(number), "netns", self.switch]
        run([*inside, "link", "add", "eth0", "type", "veth", *peer])
        run([*inside, "addr", "add", f"{address(number)}/24", "dev", "eth0"])
        run([*inside, "link", "set", "eth0", "up"])
        self._ip("link", "set", port(number), "master", "br0", "up")

    @property
    def switch(self) -> str:
        """The namespace of the switch."""
        return f"{self._name}-switch"

    def namespace(self, number: int) -> str:
        """Return the network namespace of a robot, or of the fleet."""
        return f"{self._name}-{number or 'fleet'}"

    def cut(self, number: int) -> None:
        """Unplug the cable: both sides lose the carrier."""
        self._ip("link", "set", port(number), "down")

    def silent(self, number: int) -> None:
        """Drop all packets while the carrier stays up, so that no robot is notified."""
        self._inside("bridge", "link", "set", "dev", port(number), "state", "disabled")

    def split(self, one: int, other: int) -> None:
        """Drop packets between these two only."""
        a, b = port(one), port(other)
        table = f"bridge split_{a}_{b}"
        self._tables.add(table)
        self._nft(f"""
            table {table} {{
                chain forward {{
                    type filter hook forward priority 0
                    iifname {a} oifname {b} drop
                    iifname {b} oifname {a} drop
                }}
            }}""")

    def wall(self, number: int, tcp: int) -> None:
        """Drop what comes to one port of TCP of this robot; what it opens itself passes."""
        table = f"bridge wall_{port(number)}"
        self._tables.add(table)
        self._nft(f"""
            table {table} {{
                chain forward {{
                    type filter hook forward priority 0
                    oifname {port(number)} ether type ip tcp dport {tcp} drop
                }}
            }}""")

    def loss(self, number: int, percent: float) -> None:
        """Drop a share of the packets at random, each way."""
        name = port(number)
        self._tables.add(f"netdev loss_{name}")
        lose = f"numgen random mod 1000 < {round(percent * 10)} drop" if percent < 100 else "drop"
        hook = f"device {name} priority 0; {lose}"
        self._nft(f"""
            table netdev loss_{name} {{
                chain in {{ type filter hook ingress {hook}; }}
                chain out {{ type filter hook egress {hook}; }}
            }}""")

    def slow(self, number: int, *, delay: float, loss: float, rate: float) -> None:
        """Make a cable slow and lossy: seconds, a share of the packets, bytes a second; each way.

        Raises:
            RobotError: it has a slow line already, or that line does not start.
        """
        if number in self._slow:
            raise RobotError(f"{port(number)} is slow already")
        bridge, near, far = f"slow{number}", f"near{number}", f"far{number}"
        command = [sys.executable, slowline.__file__, near, far, str(delay), str(loss), str(rate)]
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.switch, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._slow[number] = process
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RobotError(f"the slow line of {port(number)} does not start")
        self._ip("link", "add", bridge, "type", "bridge", *SWITCHING)
        for each, to in ((near, bridge), (far, "br0"), (port(number), bridge)):
            self._ip("link", "set", each, "master", to, "up")
        self._ip("link", "set", bridge, "up")

    def _end_slow(self, number: int) -> None:
        process = self._slow.pop(number)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()

    def repair(self, number: int) -> None:
        """Undo all faults of one robot."""
        name = port(number)
        if number in self._slow:
            self._end_slow(number)
            self._ip("link", "set", name, "master", "br0")
            self._ip("link", "del", f"slow{number}")
        for table in [each for each in self._tables if name in each.split("_")]:
            self._inside("nft", "delete", "table", *table.split())
            self._tables.discard(table)
        self._ip("link", "set", name, "up")
        # On a busy machine the carrier comes a moment after the link is up.
        forward = ["bridge", "link", "set", "dev", name, "state", "forwarding"]
        command = ["ip", "netns", "exec", self.switch, *forward]
        wait_until(lambda: attempt(command).returncode == 0, f"{name} is repaired")

    def traffic(self, number: int) -> int:
        """Return the bytes that a cable has carried so far, both ways."""
        shown = self._inside("ip", "-s", "-j", "link", "show", "dev", port(number))
        (link,) = json.loads(shown)
        return int(link["stats64"]["rx"]["bytes"] + link["stats64"]["tx"]["bytes"])

    def _nft(self, rules: str) -> None:
        run(["ip", "netns", "exec", self.switch, "nft", "-f", "-"], stdin=rules.encode())

    def _ip(self, *words: str) -> None:
        run(["ip", "-n", self.switch, *words])

    def _inside(self, *command: str) -> str:
        return run(["ip", "netns", "exec", self.switch, *command])


def address(number: int) -> str:
    """Return the address of a robot, or of the fleet: in a network reserved for tests."""
    return f"198.18.0.{10 + number if number else 1}"


def port(number: int) -> str:
    """Return the name of the switch's end of a cable."""
    return f"port{number}"
