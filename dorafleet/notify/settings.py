"""The section `[alerts]` of the coordinator's configuration file: where alerts are sent.

Secrets come from files that no other user may read; no message names them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from email.utils import parseaddr
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from dorad.control.errors import ControlError
from dorad.control.privatefile import check_private
from dorad.dataflow.errors import TextError
from dorad.dataflow.fields import Fields, one_of
from dorad.dataflow.problems import Problems
from dorad.dataflow.text import read_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dorad.control.messages import Severity

MAX_SECRET = 4096
"""Bytes of a file with a secret."""
PORTS = {"none": 25, "starttls": 587, "tls": 465}
"""How a connection to a mail server is encrypted, with its usual port."""

_HOST = re.compile(r"[A-Za-z0-9:]([A-Za-z0-9.:_-]{0,252}[A-Za-z0-9:])?")
_ADDRESS = re.compile(r"[!-?A-~]{1,64}@[A-Za-z0-9.\[\]:-]{1,255}")


@dataclass(frozen=True, slots=True)
class Webhook:
    """A server that gets each notification as JSON."""

    url: str = field(repr=False)
    """May contain a secret. It is in no log and no message; `place` is."""
    token: str = field(default="", repr=False)
    """Sent as `Authorization: Bearer`, if there is one."""
    ca: Path | None = None
    """The authorities that may sign the server's certificate; None for those of the system."""

    @property
    def place(self) -> str:
        """The address without path and secrets."""
        parts = urlsplit(self.url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}" + ("" if parts.port is None else f":{parts.port}")


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail server, and the people to whom it sends."""

    server: str
    port: int
    encryption: str
    """One of `PORTS`."""
    sender: str
    to: tuple[str, ...]
    user: str = ""
    password: str = field(default="", repr=False)
    ca: Path | None = None
    """As for a webhook."""

    @property
    def place(self) -> str:
        """The address of the server."""
        return f"{self.server}:{self.port}"


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """Where notifications about alerts go."""

    webhook: Webhook | None = None
    mail: Mail | None = None
    severity: Severity = "warn"
    """The lowest severity that is sent."""


def read_alerts(block: Fields, file: Path) -> NotifySettings:
    """Return the settings of the section `[alerts]` of a file, and read those that it names."""
    severity = block.checked("severity", one_of(("warn", "fail")), "warn")
    settings = NotifySettings(severity="fail" if severity == "fail" else "warn")
    settings = replace(settings, webhook=_read_webhook(block, file))
    mail = block.inside("mail", "a section")
    if mail is not None:
        settings = replace(settings, mail=_read_mail(mail, file))
    block.finish()
    return settings


def _read_webhook(block: Fields, file: Path) -> Webhook | None:
    if block.has("webhook") and block.has("webhook_file"):
        block.problems.error(block.name_of("webhook"), "give only one of webhook, webhook_file")
    url = block.checked("webhook", _url, "")
    if url:
        # Chat programs have their secret in the URL.
        try:
            check_private(file, group_reads=True)
        except ControlError as error:
            hint = f"{error.hint}, or move the URL to a private file and name it as `webhook_file`"
            block.problems.error(block.name_of("webhook"), _secret(error), hint)
    url = url or _read_secret(block, "webhook_file", file, _url)
    token = _read_secret(block, "webhook_token_file", file, _token)
    ca = _path(block, "webhook_ca", file)
    if not url:
        for name in ("webhook_token_file", "webhook_ca"):
            if block.has(name) and not block.has("webhook_file"):
                block.problems.error(block.name_of(name), "needs `webhook` or `webhook_file`")
        return None
    return Webhook(url, token, ca)


def _read_mail(block: Fields, file: Path) -> Mail:
    encryption = block.checked("encryption", one_of(tuple(PORTS)), "starttls")
    user = block.text("user") or ""
    password = _read_secret(block, "password_file", file, _password)
    mail = Mail(
        server=_required(block, "server", _host),
        port=block.integer("port", minimum=1, maximum=65535) or PORTS[encryption],
        encryption=encryption,
        sender=_required(block, "from", _address),
        to=block.texts("to", _address),
        user=user,
        password=password,
        ca=_path(block, "ca", file),
    )
    if not mail.to:
        block.problems.error(block.name_of("to"), "needs `to`, a list of addresses")
    if bool(user) != block.has("password_file"):
        name = "user" if user else "password_file"
        block.problems.error(block.name_of(name), "`user` and `password_file` need each other")
    elif user and encryption == "none" and mail.server not in ("localhost", "127.0.0.1", "::1"):
        hint = 'use `encryption = "starttls"` or `"tls"`'
        where = block.name_of("encryption")
        block.problems.error(where, "a password leaves this machine only with TLS", hint)
    block.finish()
    return mail


def _required(block: Fields, name: str, check: Callable[[str], str]) -> str:
    text = block.required_text(name)
    return text and block.checked(name, check, "")


def _path(block: Fields, name: str, file: Path) -> Path | None:
    text = block.text(name)
    if not text:
        return None
    path = file.parent / text
    try:
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        block.problems.error(block.name_of(name), f"{path} cannot be read: {reason}")
    return path


def _read_secret(block: Fields, name: str, file: Path, check: Callable[[str], str]) -> str:
    """Return the one line of a private file; relative paths are beside the configuration."""
    given = block.text(name)
    if not given:
        return ""
    value = block.name_of(name)
    path = file.parent / given
    try:
        check_private(path, group_reads=True)
    except (ControlError, ValueError) as error:
        hint = error.hint if isinstance(error, ControlError) else None
        block.problems.error(value, _secret(error), hint)
        return ""
    problems = Problems(str(path))
    text = read_text(path, problems, "a file with one secret", largest=MAX_SECRET)
    block.problems.errors += problems.errors
    if text is None:
        return ""
    try:
        return check(text.strip())
    except TextError as error:
        block.problems.error(value, f"{path}: {error.message}", error.hint)
        return ""


def _secret(error: Exception) -> str:
    return str(getattr(error, "message", error)).replace("private key", "secret")


def _url(text: str) -> str:
    """Return a URL, or raise TextError, whose message does not show it."""
    try:
        parts: SplitResult | None = urlsplit(text)
        port = parts.port if parts else None
    except ValueError:
        parts = port = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise TextError("must be a URL with http or https", "such as https://chat.example/hook")
    if not _HOST.fullmatch(parts.hostname) or not all("!" <= each <= "~" for each in text):
        raise TextError("must be a URL of ASCII without blanks", "escape others as %XX")
    if parts.username is not None:
        raise TextError("cannot have a user in it", "give a token as `webhook_token_file`")
    return text


def _token(text: str) -> str:
    if not text or not all("!" <= each <= "~" for each in text):
        raise TextError("must be a token of ASCII without blanks")
    return text


def _password(text: str) -> str:
    if not text or not text.isprintable():
        raise TextError("must be one line of text")
    return text


def _host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise TextError("must be the name or address of a server", "the port goes into `port`")
    return text


def _address(text: str) -> str:
    if not _ADDRESS.fullmatch(text) or parseaddr(text)[1] != text:
        raise TextError("must be a mail address", "such as ops@example.com")
    return text
