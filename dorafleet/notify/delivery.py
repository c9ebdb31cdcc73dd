"""Send one notification to one server, with a deadline that no server can exceed.

A library that blocks does it in a thread. The deadline closes the connection under it, so that a
server that hangs, drips or never stops sending cannot hold it.
"""

from __future__ import annotations

import asyncio
import os
import smtplib
import socket
import ssl
import threading
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dorad import __version__
from dorad.phrases import shorten
from dorafleet.notify.notification import Notification, as_json, as_mail
from dorafleet.notify.settings import Mail, Webhook

if TYPE_CHECKING:
    from collections.abc import Mapping
    from io import BufferedReader


DEADLINE_S = 15.0
"""Seconds for one attempt."""
STEP_S = 10.0
"""Seconds without a byte, and for one connection or handshake."""
MAX_WORDS = 200
"""Characters of what a server says that are shown."""
MAX_REPLIES = 256 << 10
"""Bytes that a mail server may answer."""
AGAIN = frozenset({401, 403, 404, 407, 408, 410, 421, 425, 429})
"""Answers 4xx after which the same notification may succeed later, once somebody has mended it."""


class DeliveryError(Exception):
    """A notification that was not delivered; `str()` says why, without secrets."""

    def __init__(self, why: str, *, refused: bool = False, pause: float = 0.0) -> None:
        super().__init__(why)
        self.refused = refused
        """Whether this notification would be refused again."""
        self.pause = pause
        """Seconds that the server asks to wait."""


class Connection:
    """The connection of one attempt, which another thread can end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._ended = False

    def open(self, host: str, port: int) -> socket.socket:
        """Connect. Raises OSError, also after `end`."""
        made = socket.create_connection((host, port), timeout=STEP_S)
        with self._lock:
            if self._ended:
                made.close()
                raise TimeoutError
            # TLS wraps it; this one stays the socket below.
            self._socket = socket.socket(fileno=os.dup(made.fileno()))
        return made

    def end(self) -> None:
        """End the connection under the thread that uses it."""
        with self._lock:
            self._ended = True
            if self._socket is not None:
                with suppress(OSError):  # the peer has ended it
                    self._socket.shutdown(socket.SHUT_RDWR)
                self._socket.close()
                self._socket = None


class Delivery:
    """Deliver to one receiver, one notification after the other."""

    def __init__(self, receiver: Webhook | Mail, deadline: float = DEADLINE_S) -> None:
        self._receiver = receiver
        self._deadline = deadline
        self._thread: threading.Thread | None = None

    @property
    def place(self) -> str:
        """Where the receiver is, without secrets."""
        return self._receiver.place

    async def send(self, notification: Notification) -> None:
        """Deliver a notification. Raises DeliveryError."""
        if self._thread is not None and self._thread.is_alive():
            # Only looking up a name cannot be ended.
            raise DeliveryError("the name of the server is still looked up")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        connection = Connection()

        def work() -> None:
            error: Exception | None = None
            try:
                send(self._receiver, notification, connection)
            except Exception as caught:  # noqa: BLE001  # `send` raises it in the task
                error = caught
            finally:
                connection.end()
            with suppress(RuntimeError):  # the loop has ended: this process does
                loop.call_soon_threadsafe(_finish, done, error)

        self._thread = threading.Thread(target=work, name="notification", daemon=True)
        self._thread.start()
        try:
            async with asyncio.timeout(self._deadline):
                await done
        except TimeoutError:
            raise DeliveryError(f"no answer within {self._deadline:.0f} s") from None
        finally:
            connection.end()


def _finish(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


def send(receiver: Webhook | Mail, notification: Notification, connection: Connection) -> None:
    """Deliver a notification over a connection. Raises DeliveryError."""
    try:
        if isinstance(receiver, Webhook):
            _post(receiver, as_json(notification), connection)
        else:
            _mail(receiver, notification, connection)
    except (OSError, HTTPException, smtplib.SMTPException, UnicodeError) as error:
        raise DeliveryError(_reason(error)) from None


def _reason(error: Exception) -> str:
    """Return why a server could not be used."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {shorten(error.verify_message, MAX_WORDS)}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS with it: {shorten(error.reason or str(error), MAX_WORDS)}"
    if isinstance(error, TimeoutError):
        return f"no answer within {STEP_S:.0f} s"
    if isinstance(error, socket.gaierror):
        return f"its name is not found: {error.strerror}"
    if isinstance(error, ConnectionError | smtplib.SMTPServerDisconnected) and not isinstance(
        error, ConnectionRefusedError
    ):
        return "it has closed the connection without an answer"
    if isinstance(error, OSError) and error.strerror:
        return shorten(error.strerror, MAX_WORDS)
    return f"it does not speak the protocol: {type(error).__name__}"


def _context(ca: object) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=None if ca is None else str(ca))


def _post(webhook: Webhook, body: bytes, connection: Connection) -> None:
    """Send a body to a webhook. The end of the answer is not waited for."""
    url = urlsplit(webhook.url)
    assert url.hostname is not None
    secure = url.scheme == "https"
    context = _context(webhook.ca) if secure else None
    http = HTTPConnection(url.hostname, url.port or (443 if secure else 80), timeout=STEP_S)
    try:
        http.sock = connection.open(http.host, http.port)
        if context is not None:
            http.sock = context.wrap_socket(http.sock, server_hostname=url.hostname)
        path = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"dorafleet/{__version__}",
            "Connection": "close",
        }
        if webhook.token:
            headers["Authorization"] = f"Bearer {webhook.token}"
        http.request("POST", path, body, headers)
        # A response that ends the connection has taken its socket, which `http` no longer closes.
        with http.getresponse() as response:
            _judge(response)
    finally:
        http.close()


def _judge(response: HTTPResponse) -> None:
    """Raise DeliveryError unless a server has taken a notification."""
    status = response.status
    if 200 <= status < 300:
        return
    words = f"it answers {status} {shorten(response.reason or '', MAX_WORDS)}".rstrip()
    if 300 <= status < 400:
        # The new address may lead anywhere, and would get the secrets, too.
        where = urlsplit(response.headers.get("Location", "")).hostname
        to = f" to {shorten(where, MAX_WORDS)}" if where else ""
        raise DeliveryError(f"{words}, a redirect{to}: configure the final address")
    after = response.headers.get("Retry-After", "")
    pause = float(after) if after.isascii() and after.isdecimal() and len(after) < 6 else 0.0
    raise DeliveryError(words, refused=400 <= status < 500 and status not in AGAIN, pause=pause)


class _Smtp(smtplib.SMTP):
    """A client of a mail server whose connection another thread can end."""

    def __init__(self, mail: Mail, connection: Connection, tls: ssl.SSLContext | None) -> None:
        """Connect, with TLS from the beginning if `tls` is given."""
        self._connection = connection
        self._tls = tls
        super().__init__(mail.server, mail.port, socket.gethostname(), timeout=STEP_S)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        made = self._connection.open(host, port)
        return made if self._tls is None else self._tls.wrap_socket(made, server_hostname=host)

    def getreply(self) -> tuple[int, bytes]:
        """Read one answer; smtplib would read one without end."""
        if self.file is None:
            assert self.sock is not None
            self.file = _Replies(self.sock.makefile("rb"))
        return super().getreply()


class _Replies:
    """What a mail server sends, up to a number of bytes that no honest one reaches."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self._left = MAX_REPLIES

    def readline(self, limit: int) -> bytes:
        line = self._file.readline(limit)
        self._left -= len(line)
        if self._left < 0:
            raise DeliveryError("its answers have no end")
        return line

    def close(self) -> None:
        self._file.close()


def _mail(mail: Mail, notification: Notification, connection: Connection) -> None:
    context = None if mail.encryption == "none" else _context(mail.ca)
    try:
        with closing(
            _Smtp(mail, connection, context if mail.encryption == "tls" else None)
        ) as smtp:
            smtp.ehlo_or_helo_if_needed()
            if mail.encryption == "starttls":
                if not smtp.has_extn("starttls"):
                    raise DeliveryError("it offers no STARTTLS, and mail is not sent without")
                smtp.starttls(context=context)
                smtp.ehlo()
            if mail.user:
                smtp.login(mail.user, mail.password)
            refused = smtp.send_message(as_mail(notification, mail), mail.sender, [*mail.to])
    except smtplib.SMTPRecipientsRefused as error:
        raise _refused(error.recipients) from None
    except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
        words = _said(error.smtp_code, error.smtp_error)
        raise DeliveryError(words, refused=error.smtp_code >= 500) from None
    except smtplib.SMTPAuthenticationError as error:
        # Its words may repeat the password.
        raise DeliveryError(f"it refuses user and password ({error.smtp_code})") from None
    except smtplib.SMTPResponseException as error:
        raise DeliveryError(_said(error.smtp_code, error.smtp_error)) from None
    if refused:
        # The others have got it, and would get it twice.
        raise DeliveryError(f"not all have got it: {_refused(refused)}", refused=True)


def _refused(recipients: Mapping[str, tuple[int, bytes]]) -> DeliveryError:
    name, (code, words) = next(iter(recipients.items()))
    final = all(code >= 500 for code, _ in recipients.values())
    return DeliveryError(f"{shorten(name)}: {_said(code, words)}", refused=final)


def _said(code: int, words: Any) -> str:
    text = words.decode("ascii", "replace") if isinstance(words, bytes) else str(words)
    return f"it answers {code} {shorten(text, MAX_WORDS)}"
