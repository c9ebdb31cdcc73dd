"""What a notification says: alerts that were raised or are over, as JSON and as mail.

Text of robots is cut, its control characters are escaped.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import TYPE_CHECKING, Literal

import msgspec

from dorad.control.messages import Severity, Struct
from dorad.int64 import Int64
from dorad.phrases import first_of
from dorad.terminal import local_time, visible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dorafleet.notify.settings import Mail

FORMAT = 1
"""The version of the JSON; it changes when a field is removed or means something else."""
MAX_TEXT = 300
"""Characters of a text."""
MAX_NAME = 100
"""Characters of a name."""
MAX_GROUPS = 50
"""Groups in a notification, of those that were raised and of those that are over."""
MAX_ROBOTS = 20
"""Robots that a group names."""
SHOWN = 3
"""Groups in the summary."""

_MARKUP = str.maketrans(dict.fromkeys("<>@&`*_~|[]", " "))
"""Characters with which chat programs mention people, link and format."""


class Group(Struct):
    """Alerts of one cause, about the same thing, on one robot or several."""

    cause: str
    """What kind of trouble: `node-failed`, `input-broken`, `unreachable`, ..."""
    subject: str
    """What it is about: a dataflow, a node or an input."""
    severity: Severity
    text: str
    robots: list[str]
    """Where; at most 20 of them are named."""
    count: Int64
    """Number of robots."""
    since: float
    """When the first one began, in seconds since 1970."""
    dataflow: str | None = None
    node: str | None = None
    returns: Int64 = 0
    """How often it has come back."""


class Notification(Struct):
    """One message to people or programs."""

    id: str
    """The same in each attempt to deliver it."""
    coordinator: str
    """The name of the coordinator's machine."""
    at: float
    """When it was made, in seconds since 1970."""
    text: str = ""
    """A summary on one line, for chat programs."""
    raised: list[Group] = []
    cleared: list[Group] = []
    """Those that are over."""
    open: Int64 = 0
    """Number of alerts that were raised and are not over, by robot."""
    omitted: Int64 = 0
    """Number of alerts that are not listed, because there are too many."""
    dropped: Int64 = 0
    """Number of earlier notifications that this receiver has not got, since the last one."""
    kind: Literal["alerts", "test"] = "alerts"
    version: Int64 = FORMAT


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """Return text of a robot on one line, cut, with control characters escaped."""
    line = visible(text[: limit + 1])
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def summary(raised: Iterable[Group], cleared: Iterable[Group], more: int) -> str:
    """Return one line about alerts, without characters that chat programs format."""
    parts = []
    for what, groups in (("raised", list(raised)), ("over", list(cleared))):
        if groups:
            shown = first_of(map(_brief, groups), SHOWN, "; ")
            parts.append(f"{sum(each.count for each in groups)} {what}: {shown}")
    if more:
        parts.append(f"{more} more are not listed")
    return ". ".join(parts).translate(_MARKUP)


def _brief(group: Group) -> str:
    count = f" and {group.count - 2} more" if group.count > 2 else ""
    return f"{', '.join(group.robots[:2])}{count}: {group.text}"


def as_json(notification: Notification) -> bytes:
    """Return what a webhook gets."""
    return msgspec.json.encode(notification)


def as_mail(notification: Notification, mail: Mail) -> EmailMessage:
    """Return the mail to all receivers."""
    message = EmailMessage()
    message["From"] = mail.sender
    message["To"] = ", ".join(mail.to)
    message["Subject"] = f"[dorafleet] {clean(notification.text, 120)}"
    message["Date"] = format_datetime(datetime.fromtimestamp(notification.at, UTC))
    # The same in each attempt, so that a mail that arrives twice is recognised.
    domain = mail.sender.rpartition("@")[2]
    message["Message-ID"] = f"<{notification.id}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("\n".join(_lines(notification)), cte="quoted-printable")
    return message


def _lines(notification: Notification) -> Iterable[str]:
    for title, groups in (("Raised", notification.raised), ("Over", notification.cleared)):
        if groups:
            yield f"{title}:"
        for group in groups:
            unnamed = group.count - len(group.robots)
            robots = ", ".join(group.robots) + (f" and {unnamed} more" if unnamed else "")
            began = local_time(group.since, "%Y-%m-%d %H:%M:%S %z")
            back = f", has come back {group.returns} times" if group.returns else ""
            yield f"  {group.severity}  {robots}: {group.text}"
            yield f"        {group.cause} {group.subject}, since {began}{back}"
        if groups:
            yield ""
    if notification.kind == "test":
        yield notification.text
        yield ""
    if notification.omitted:
        yield f"{notification.omitted} alerts are not listed."
    if notification.dropped:
        yield f"{notification.dropped} earlier notifications were not delivered to you."
    yield f"{notification.open} alerts are open. `dorafleet alerts` lists them."
    yield f"-- \ncoordinator on {notification.coordinator}"
