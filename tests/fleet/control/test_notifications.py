"""Alerts of robots reach a webhook and a mail server, over the end of a coordinator."""

import logging

import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorafleet.coordinator.messages import AlertReceivers, AlertTest
from dorafleet.notify import tracker
from dorafleet.notify.settings import Mail, NotifySettings, Webhook
from dorafleet.store.errors import Code, StoreError
from tests.fleet.notify.receivers import HttpServer, MailBox, bad_server, mail_server

from .serving import leading, machine
from .test_alerts import CRASH, Daemon, connect

pytestmark = pytest.mark.long

SECRET = "xoxb-secret"


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Group for a short time."""
    monkeypatch.setattr(tracker, "GROUP_S", 0.5)
    monkeypatch.setattr(tracker, "PACE_S", 0.5)


def webhook(port):
    return NotifySettings(webhook=Webhook(f"http://127.0.0.1:{port}/{SECRET}"))


def raised(server):
    return [
        (robot, each["subject"])
        for body in server.bodies
        for each in body["raised"]
        if each["cause"] == "node-failed"
        for robot in each["robots"]
    ]


async def receivers(fleet):
    found = await fleet.call("alerts.receivers")
    assert isinstance(found, AlertReceivers)
    return {each.name: each for each in found.receivers}


async def test_a_crash_is_told_once_and_its_end_too_over_a_restart(tmp_path, monkeypatch):
    daemon = Daemon()
    daemon.find(CRASH)
    with HttpServer() as server:
        async with leading(tmp_path, notify=webhook(server.port)) as fleet:
            await connect(fleet, "arm1", daemon)
            await fleet.until(lambda: raised(server))
            await fleet.until(lambda: fleet.control.overview._kept.robots)
            queued = fleet.control.notifications
            await fleet.until(lambda: not queued._queue.waiting and not queued._stored_waiting)
            state = (await receivers(fleet))["webhook"]
            assert (state.waiting, state.error, state.stored) == (0, "", True)
            assert state.place == f"http://127.0.0.1:{server.port}"
        async with leading(tmp_path, notify=webhook(server.port)) as fleet:
            await connect(fleet, "arm1", daemon)
            await fleet.until(lambda: fleet.control.overview.rows["arm1"].state == "fail")
            monkeypatch.setattr("dorad.control.alertbook.CLEARED_AFTER_S", 0.2)
            monkeypatch.setattr(tracker, "CLEAR_S", 1.0)
            daemon.find()
            await fleet.until(
                lambda: any(
                    each["cause"] == "node-failed" and each["robots"] == ["arm1"]
                    for body in server.bodies
                    for each in body["cleared"]
                )
            )
    assert raised(server) == [("arm1", "pick/gripper")]
    assert len({body["id"] for body in server.bodies}) == len(server.bodies)


async def test_what_could_not_be_delivered_waits_over_the_end_of_a_coordinator(tmp_path, caplog):
    daemon = Daemon()
    daemon.find(CRASH)
    with HttpServer() as server:
        server.status = 500
        async with leading(tmp_path, notify=webhook(server.port)) as fleet:
            await connect(fleet, "arm1", daemon)
            await fleet.until(lambda: len(server.paths) >= 2)
            state = (await receivers(fleet))["webhook"]
            assert state.waiting >= 1
            assert "it answers 500" in state.error
            assert state.failing_since is not None
        ids = {each["Content-Length"] for each in server.headers}
        assert len(ids) == 1  # the same one again
        server.status = 200
        # The robot does not come back: only the store knows.
        async with leading(tmp_path, notify=webhook(server.port)) as fleet:
            await fleet.until(lambda: raised(server))
            await fleet.until(lambda: not fleet.control.notifications._queue.waiting)
            assert (await receivers(fleet))["webhook"].error == ""
    assert raised(server) == [("arm1", "pick/gripper")]
    assert SECRET not in caplog.text
    assert "it answers 500" in caplog.text


async def test_many_robots_that_alert_at_once_are_one_notification(tmp_path, monkeypatch):
    monkeypatch.setattr(tracker, "GROUP_S", 5.0)
    machines = tuple(machine(f"arm{number}", number + 1) for number in range(30))
    daemon = Daemon()
    daemon.find(CRASH)
    with HttpServer() as server:
        async with leading(tmp_path, machines, notify=webhook(server.port)) as fleet:
            for each in machines:
                await connect(fleet, each.id, daemon)
            book = fleet.control.overview.book
            await fleet.until(lambda: sum(map(len, book.stored().values())) >= 30)
            await fleet.until(lambda: sum(len(b["raised"]) for b in server.bodies))
            told = fleet.control.notifications._tracker
            await fleet.until(lambda: told.open >= 30 and not told._changed)
            await fleet.until(lambda: not fleet.control.notifications._queue.waiting)
    groups = [each for body in server.bodies for each in body["raised"]]
    assert sum(each["count"] for each in groups if each["cause"] == "node-failed") == 30
    # They connect one after the other; on a busy machine that takes longer than one group.
    assert len(server.bodies) < 10


async def test_a_server_that_hangs_holds_up_neither_mail_nor_the_coordinator(tmp_path):
    daemon = Daemon()
    daemon.find(CRASH)
    box = MailBox()

    def hang(connection):
        while connection.recv(65536):
            pass

    with bad_server(hang) as port, mail_server(box) as mail_port:
        mail = Mail("127.0.0.1", mail_port, "none", "fleet@example.com", ("ann@example.com",))
        settings = NotifySettings(webhook=webhook(port).webhook, mail=mail)
        async with leading(tmp_path, notify=settings) as fleet:
            await connect(fleet, "arm1", daemon)
            await fleet.until(lambda: box.mails)
            queue = fleet.control.notifications._queue
            await fleet.until(lambda: queue.receivers["mail"].delivered_at)
            found = await receivers(fleet)
            assert found["webhook"].waiting >= 1
            assert found["mail"].waiting == 0
    assert b"arm1: node gripper failed" in box.mails[0].content


async def test_a_receiver_that_is_new_is_told_of_what_lasts(tmp_path):
    daemon = Daemon()
    daemon.find(CRASH)
    with HttpServer() as first, HttpServer() as second:
        async with leading(tmp_path, notify=webhook(first.port)) as fleet:
            await connect(fleet, "arm1", daemon)
            await fleet.until(lambda: raised(first))
        async with leading(tmp_path) as fleet:
            assert await receivers(fleet) == {}
            await fleet.until(lambda: not fleet.control.notifications._unsaved)
            assert not (await fleet.store.get("notify/told/")).entries
        async with leading(tmp_path, notify=webhook(second.port)) as fleet:
            await connect(fleet, "arm1", daemon)
            await fleet.until(lambda: raised(second))


async def test_without_room_in_the_store_alerts_are_sent_and_it_is_said(tmp_path, caplog):
    daemon = Daemon()
    daemon.find(CRASH)
    with HttpServer() as server:
        async with leading(tmp_path, notify=webhook(server.port)) as fleet:
            commit = fleet.store.commit

            async def full(transaction):
                if any(key.startswith("notify/") for key in transaction.puts):
                    raise StoreError(Code.UNAVAILABLE, "the disk is full")
                return await commit(transaction)

            fleet.store.commit = full
            await connect(fleet, "arm1", daemon)
            await fleet.until(lambda: raised(server))
            assert (await receivers(fleet))["webhook"].stored is False
            assert caplog.text.count("notifications are not stored") == 1
            fleet.store.commit = commit
            await fleet.until(lambda: not fleet.control.notifications._measured.failed)


async def test_a_test_goes_to_all_receivers_at_once_and_says_what_failed(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    with HttpServer() as server, bad_server(lambda connection: None) as port:
        mail = Mail("127.0.0.1", port, "none", "fleet@example.com", ("ann@example.com",))
        settings = NotifySettings(webhook=webhook(server.port).webhook, mail=mail)
        async with leading(tmp_path, notify=settings) as fleet:
            found = await fleet.call("alerts.test")
            assert isinstance(found, AlertTest)
            assert found.errors["webhook"] == ""
            assert "closed the connection" in found.errors["mail"]
    (body,) = [each for each in server.bodies if each["kind"] == "test"]
    assert "a test of dorafleet" in body["text"]
    assert SECRET not in caplog.text
    async with leading(tmp_path) as fleet:
        with pytest.raises(ControlError, match="sends alerts to nobody"):
            await fleet.call("alerts.test", m.Nothing())


async def test_other_receivers_are_used_without_a_restart_and_nothing_that_waits_is_lost(tmp_path):
    daemon = Daemon()
    daemon.find(CRASH)
    box = MailBox()
    with HttpServer() as dead, HttpServer() as second, mail_server(box) as port:
        dead.status = 500
        async with leading(tmp_path, notify=webhook(dead.port)) as fleet:
            await connect(fleet, "arm1", daemon)
            notifications = fleet.control.notifications
            await fleet.until(lambda: notifications._queue.receivers["webhook"].failing_since)
            assert (await receivers(fleet))["webhook"].failing_since is not None
            notifications.change(webhook(second.port))
            await fleet.until(lambda: raised(second))
            assert raised(second) == [("arm1", "pick/gripper")]
            await fleet.until(lambda: not notifications._queue.waiting)
            found = await receivers(fleet)
            assert (found["webhook"].place, found["webhook"].error) == (
                f"http://127.0.0.1:{second.port}",
                "",
            )
            count = len(dead.paths)
            # One that is new is told of all that lasts.
            mail = Mail("127.0.0.1", port, "none", "f@example.com", ("a@example.com",))
            notifications.change(NotifySettings(mail=mail))
            await fleet.until(lambda: box.mails)
            assert [*await receivers(fleet)] == ["mail"]
            notifications.change(NotifySettings())
            await fleet.until(lambda: not notifications._receivers)
            assert await receivers(fleet) == {}
            assert len(dead.paths) == count


async def test_a_change_that_cannot_be_read_is_told_by_the_commands(tmp_path):
    async with leading(tmp_path) as fleet:
        fleet.control.notifications.problem = "dorafleet.toml: line 3: no such key"
        found = await fleet.call("alerts.receivers")
        assert found.problem == "dorafleet.toml: line 3: no such key"
