"""Certificates of robots are renewed over their connections, and nothing stops for it."""

import os
import time

import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.messages.agent import Certificates, Csr
from dorad.control.peer import Peer
from dorad.control.tls import Certificate, Identity
from tests.harness.waiting import until

from .agents import FakeAgent
from .serving import leading

YEAR_S = 365 * 86400.0


def peer_with(days_left):
    """Return who connects: a robot whose certificate is good for so many days."""
    end = time.time() + days_left * 86400.0

    def authenticate(_connection, request):
        robot = request.headers["X-Robot"]
        certificate = Certificate(Identity("robot", robot), 7, end - YEAR_S, end)
        return Peer(0, os.getuid(), 0, name=robot, role="robot", certificate=certificate)

    return authenticate


class Signer:
    def __init__(self, error=None):
        self.signed = []
        self._error = error

    async def __call__(self, peer, csr):
        if self._error is not None:
            raise self._error
        self.signed.append((peer.name, csr.csr))
        return Certificates(chain="new chain", authority="root")


def renewing(agent, certified):
    async def renew(_call, _params):
        return Csr(csr="a request")

    async def certify(_call, params):
        certified.append(params.chain)
        return m.Nothing()

    agent.handlers = {"agent.renew": renew, "agent.certify": certify}
    return agent


async def connected(fleet, certified):
    agent = renewing(FakeAgent("arm1", fleet.port), certified)
    fleet.agents["arm1"] = agent
    await fleet.connect(agent)
    # With its first report, the dates are looked at.
    agent.changed.ring()
    return agent


@pytest.mark.parametrize(("days_left", "renewed"), [(300, False), (200, True), (-30, True)])
async def test_a_certificate_is_renewed_from_a_third_of_its_life_and_after_its_end(
    tmp_path, days_left, renewed
):
    certified, sign = [], Signer()
    async with leading(tmp_path, authenticate=peer_with(days_left), sign=sign) as fleet:
        agent = await connected(fleet, certified)
        if renewed:
            await until(lambda: certified)
            assert sign.signed == [("arm1", "a request")]
            assert certified == ["new chain"]
        else:
            # The dates were looked at before the second of two reports.
            for _ in range(2):
                seen = fleet.control.robots.get("arm1").seen_at
                agent.changed.ring()
                await fleet.until(lambda seen=seen: fleet.control.robots.get("arm1").seen_at > seen)
            assert not sign.signed
        assert fleet.control.robots.get("arm1").state == "connected"


async def test_a_renewal_that_fails_stops_nothing(tmp_path, caplog):
    sign = Signer(ControlError("unavailable", "the disk is full"))
    async with leading(tmp_path, authenticate=peer_with(200), sign=sign) as fleet:
        await connected(fleet, [])
        await until(lambda: "is not renewed: the disk is full" in caplog.text)
        assert fleet.control.robots.get("arm1").state == "connected"


async def test_an_expired_robot_that_cannot_be_renewed_is_refused(tmp_path):
    sign = Signer(ControlError("refused", "robot `arm1` was revoked"))
    async with leading(tmp_path, authenticate=peer_with(-1), sign=sign) as fleet:
        agent = renewing(FakeAgent("arm1", fleet.port), [])
        fleet.agents["arm1"] = agent
        await agent.start()
        await fleet.until(lambda: fleet.control.robots.get("arm1").was_refused)
        assert "was revoked" in fleet.control.robots.get("arm1").reason
