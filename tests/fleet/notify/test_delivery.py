"""One notification on its way to a real server, also to one that hangs, drips or lies."""

import asyncio
import contextlib
import email
import threading
import time
from email.policy import default

import psutil
import pytest

from dorafleet.notify.delivery import Delivery, DeliveryError
from dorafleet.notify.notification import Group, Notification
from dorafleet.notify.settings import Mail, Webhook
from tests.harness.leaks import descriptors
from tests.harness.waiting import until

from .receivers import NOTIFICATION, HttpServer, MailBox, bad_server, certificate, mail_server

SECRET = "xoxb-secret"
DEADLINE_S = 1.0


def webhook(port, path=f"/hook/{SECRET}", scheme="http", **more):
    return Webhook(f"{scheme}://127.0.0.1:{port}{path}", **more)


def mail(port, encryption="none", to=("ann@example.com",), **more):
    return Mail("127.0.0.1", port, encryption, "fleet@example.com", to, **more)


async def failure(receiver, deadline=30.0):
    with pytest.raises(DeliveryError) as caught:
        await Delivery(receiver, deadline).send(NOTIFICATION)
    assert SECRET not in str(caught.value)
    return caught.value


def attempts():
    """Return the threads of attempts."""
    return [each for each in threading.enumerate() if each.name == "notification"]


async def ended_threads():
    """Wait until no attempt holds a thread."""
    await until(lambda: not attempts())


async def test_a_webhook_gets_json_with_a_version_and_the_token():
    with HttpServer() as server:
        await Delivery(webhook(server.port, "/a/b?c=d", token="t0k")).send(NOTIFICATION)
    (body,) = server.bodies
    assert (body["version"], body["id"], body["kind"]) == (1, "1f0c", "alerts")
    assert server.paths == ["/a/b?c=d"]
    assert server.headers[0]["Authorization"] == "Bearer t0k"
    assert server.headers[0]["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("status", "refused"),
    [(500, False), (503, False), (429, False), (401, False), (404, False), (400, True)],
)
async def test_an_answer_that_is_no_success_is_a_failure_with_its_number(status, refused):
    with HttpServer() as server:
        server.status = status
        error = await failure(webhook(server.port))
    assert f"it answers {status}" in str(error)
    assert error.refused is refused


async def test_a_failure_that_is_kept_holds_no_socket():
    before = set(descriptors().values())
    with HttpServer() as server:
        server.status = 500
        error = await failure(webhook(server.port))
    await until(lambda: set(descriptors().values()) <= before)
    assert error.__traceback__ is not None


async def test_a_server_that_is_busy_says_when_to_try_again():
    with HttpServer() as server:
        server.status, server.answer_headers = 429, {"Retry-After": "42"}
        assert (await failure(webhook(server.port))).pause == 42.0
        server.answer_headers = {"Retry-After": "9" * 400}
        assert (await failure(webhook(server.port))).pause == 0.0


async def test_a_redirect_is_not_followed_and_its_host_is_named():
    with HttpServer() as other, HttpServer() as server:
        server.status = 307
        server.answer_headers = {"Location": f"http://127.0.0.1:{other.port}/x?{SECRET}"}
        error = await failure(webhook(server.port))
        assert "a redirect to 127.0.0.1: configure the final address" in str(error)
        assert not error.refused
    assert other.paths == []


def hang(connection):
    while connection.recv(65536):
        pass


def drip(connection):
    while True:
        connection.sendall(b"H")
        time.sleep(0.05)


def drip_headers(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X: y\r\n")
        time.sleep(0.05)


def answer_100_for_ever(connection):
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


@pytest.mark.parametrize("behave", [hang, drip, answer_100_for_ever])
@pytest.mark.parametrize("kind", [webhook, mail])
async def test_a_server_that_never_finishes_holds_up_nothing_beyond_the_deadline(behave, kind):
    with bad_server(behave) as port:
        receiver = kind(port)
        began = time.monotonic()
        error = await failure(receiver, DEADLINE_S)
        # Several connections may fit: whichever comes first, the deadline or the refusal.
        assert time.monotonic() - began < 20
        await ended_threads()
    if behave is hang:
        assert "no answer within 1 s" in str(error)


async def test_a_server_that_drips_its_headers_ends_at_the_deadline():
    with bad_server(drip_headers) as port:
        assert "no answer within 1 s" in str(await failure(webhook(port), DEADLINE_S))
        await ended_threads()


async def test_an_endless_body_is_not_read():
    sent = []

    def behave(connection):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            sent.append(connection.send(b"x" * 65536))

    with bad_server(behave) as port:
        await Delivery(webhook(port)).send(NOTIFICATION)
        await ended_threads()
    assert sum(sent) < 64 << 20


async def test_an_endless_answer_of_a_mail_server_is_not_kept():
    def behave(connection):
        connection.sendall(b"220 hi\r\n")
        connection.recv(100)
        while True:
            connection.sendall(b"250-" + b"x" * 500 + b"\r\n")

    before = psutil.Process().memory_info().rss
    with bad_server(behave) as port:
        error = await failure(mail(port))
        await ended_threads()
    assert "its answers have no end" in str(error)
    assert psutil.Process().memory_info().rss - before < 100 << 20


@pytest.mark.parametrize("kind", [webhook, mail])
async def test_nonsense_and_a_closed_connection_are_failures(kind):
    for behave in (lambda c: None, lambda c: c.sendall(b"\xff\x00\n" * 100), lambda c: c.close()):
        with bad_server(behave) as port:
            error = await failure(kind(port))
            assert str(error).isprintable()
        await ended_threads()


async def test_a_port_without_a_server_is_said():
    with bad_server(hang) as port:
        pass
    assert "Connection refused" in str(await failure(webhook(port)))
    assert "Connection refused" in str(await failure(mail(port)))


async def test_a_name_that_does_not_exist_is_said():
    assert "its name is not found" in str(await failure(Webhook("http://nothing.invalid/")))


async def test_over_tls_the_certificate_is_checked_and_a_foreign_one_is_said(tmp_path):
    context, authority = certificate(tmp_path)
    with HttpServer(context) as server:
        await Delivery(webhook(server.port, scheme="https", ca=authority)).send(NOTIFICATION)
        assert len(server.bodies) == 1
        error = await failure(webhook(server.port, scheme="https"))
        assert "its certificate is not accepted: self-signed certificate" in str(error)
        (tmp_path / "other").mkdir()
        _, other = certificate(tmp_path / "other")
        assert "certificate" in str(await failure(webhook(server.port, scheme="https", ca=other)))
        assert len(server.bodies) == 1
    named, authority = certificate(tmp_path, "10.1.2.3")
    with HttpServer(named) as server:
        error = await failure(webhook(server.port, scheme="https", ca=authority))
        assert "IP address mismatch, certificate is not valid for '127.0.0.1'" in str(error)
    with HttpServer() as server:
        assert "no TLS with it" in str(await failure(webhook(server.port, scheme="https")))


FULL = Notification(
    id="77",
    coordinator="base",
    at=1_000_000_000.0,
    text="1 raised: arm1: node gripper failed",
    raised=[
        Group(
            cause="node-failed",
            subject="pick/gripper",
            severity="fail",
            text="node gripper failed \\x1b[2J é",
            robots=["arm1", "arm2"],
            count=7,
            since=1000.0,
        )
    ],
    open=7,
    dropped=3,
)


async def test_mail_goes_to_all_people_and_says_what_is_wrong():
    box = MailBox()
    with mail_server(box) as port:
        await Delivery(mail(port, to=("ann@example.com", "bob@example.com"))).send(FULL)
    (envelope,) = box.mails
    assert envelope.rcpt_tos == ["ann@example.com", "bob@example.com"]
    message = email.message_from_bytes(envelope.content, policy=default)
    assert message["Subject"] == "[dorafleet] 1 raised: arm1: node gripper failed"
    assert message["Message-ID"] == "<77@example.com>"
    text = message.get_content()
    assert "fail  arm1, arm2 and 5 more: node gripper failed \\x1b[2J é" in text
    assert "3 earlier notifications were not delivered to you." in text
    assert "7 alerts are open" in text


async def test_mail_over_starttls_with_a_password(tmp_path):
    context, authority = certificate(tmp_path)
    box = MailBox()
    with mail_server(box, context, password="pa$$") as port:
        good = {"user": "fleet", "password": "pa$$", "ca": authority}
        await Delivery(mail(port, "starttls", **good)).send(NOTIFICATION)
        assert len(box.mails) == 1
        wrong = mail(port, "starttls", **{**good, "password": SECRET})
        assert "it refuses user and password (535)" in str(await failure(wrong))
        foreign = mail(port, "starttls", user="fleet", password="pa$$")
        assert "its certificate is not accepted" in str(await failure(foreign))
    assert len(box.mails) == 1


async def test_a_password_is_never_sent_without_tls(tmp_path):
    box = MailBox()
    with mail_server(box) as port:
        error = await failure(mail(port, "starttls", user="fleet", password=SECRET))
        assert "it offers no STARTTLS" in str(error)
    assert box.mails == []


async def test_mail_over_tls_from_the_beginning(tmp_path):
    context, authority = certificate(tmp_path)
    said = []

    def behave(connection):
        with context.wrap_socket(connection, server_side=True) as tls:
            tls.sendall(b"220 hi\r\n")
            for answer in (b"250 hi", b"250 ok", b"250 ok", b"354 go"):
                said.append(tls.recv(4096))
                tls.sendall(answer + b"\r\n")
            while b"\r\n.\r\n" not in said[-1]:
                said.append(tls.recv(65536))
            tls.sendall(b"250 ok\r\n")
            tls.recv(100)

    with bad_server(behave) as port:
        await Delivery(mail(port, "tls", ca=authority)).send(NOTIFICATION)
        assert said[1].startswith(b"mail FROM:<fleet@example.com>")
        assert "its certificate is not accepted" in str(await failure(mail(port, "tls")))


@pytest.mark.parametrize(
    ("answer", "refused"), [("554 no spam", True), ("451 later", False), ("452 full", False)]
)
async def test_a_mail_that_is_not_taken_is_tried_again_only_if_that_may_help(answer, refused):
    box = MailBox()
    box.answer = answer
    with mail_server(box) as port:
        error = await failure(mail(port))
    assert answer in str(error)
    assert error.refused is refused


async def test_people_that_a_server_does_not_know_are_named():
    box = MailBox()
    box.refuse = {"bob@example.com": "550 no bob"}
    with mail_server(box) as port:
        some = await failure(mail(port, to=("ann@example.com", "bob@example.com")))
        none = await failure(mail(port, to=("bob@example.com",)))
    assert "not all have got it: bob@example.com: it answers 550 no bob" in str(some)
    assert some.refused  # ann would get it twice
    assert "bob@example.com: it answers 550 no bob" in str(none)
    assert len(box.mails) == 1


async def test_a_cancelled_attempt_ends_at_once_with_its_connection():
    closed = threading.Event()

    def behave(connection):
        hang(connection)
        closed.set()

    with bad_server(behave) as port:
        task = asyncio.create_task(Delivery(webhook(port)).send(NOTIFICATION))
        await until(attempts)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await ended_threads()
        assert closed.wait(30)
