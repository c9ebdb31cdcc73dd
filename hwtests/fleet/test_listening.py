"""What listens on robots and on the server, and what it says to a stranger."""

from hwtests.fleet.enrolled import NODES, EnrolledFleet
from hwtests.fleet.flows import Flow
from hwtests.robots import Robot

SSHD, LINK, COORDINATOR = 22, 5456, 6013


def listening(robot: Robot) -> set[int]:
    """Return the ports that programs of a machine listen at, other than on loopback alone."""
    found = set()
    # A socket of UDP without a peer receives from any sender.
    for line in robot.exec("ss", "--tcp", "--udp", "--listening", "--numeric", "-H").splitlines():
        host, _, port = line.split()[4].rpartition(":")
        if not host.startswith(("127.", "[::1]")):
            found.add(int(port))
    return found


def scan(robot: Robot, target: Robot) -> set[int]:
    """Return the ports of `target` that are open for `robot`."""
    robot.push(NODES / "scan.py", "/opt/scan.py")
    return set(map(int, robot.exec("python3", "/opt/scan.py", target.address, timeout=300).split()))


def test_only_what_asks_for_a_certificate_listens(robots: EnrolledFleet) -> None:
    without = {name: listening(robot) for name, robot in robots.robots.items()}
    assert set(map(frozenset, without.values())) == {frozenset({SSHD})}
    assert listening(robots.server) == {SSHD, COORDINATOR}
    with robots.running(Flow("ports")):
        assert listening(robots.arm1) | listening(robots.arm2) == {SSHD, LINK}
        assert listening(robots.server) == {SSHD, COORDINATOR}
        # Another robot sees the same.
        stranger = robots.robots["arm3"]
        assert scan(stranger, robots.arm1) == listening(robots.arm1)
        assert scan(stranger, robots.server) == {SSHD, COORDINATOR}
    assert listening(robots.arm1) == {SSHD}


def test_a_stranger_gets_no_answer_from_a_port_of_the_fleet(robots: EnrolledFleet) -> None:
    stranger = robots.robots["arm3"]
    stranger.push(NODES / "plain.py", "/opt/plain.py")

    def ask(target: Robot, port: int) -> list[str]:
        said = stranger.exec("python3", "/opt/plain.py", target.address, str(port)).splitlines()
        print(said)
        return said

    flow = Flow("strangers")
    with robots.running(flow):
        before = robots.pids(flow)
        for robot in (robots.arm1, robots.arm2):
            if LINK in listening(robot):
                encrypted, plain = ask(robot, LINK)
                # In TLS 1.3 a client may finish before the server refuses it.
                assert encrypted.startswith("tls failed") or encrypted == "tls b''"
                assert plain == "plain b''" or plain.startswith("plain b'\\x15\\x03")
        encrypted, plain = ask(robots.server, COORDINATOR)
        assert "HTTP/1.1 4" in encrypted
        assert "dorad" not in encrypted
        assert plain == "plain b''" or plain.startswith("plain b'\\x15\\x03")
        robots.flows_on(flow)
        assert robots.pids(flow) == before
    assert set(robots.states().values()) == {"connected"}
