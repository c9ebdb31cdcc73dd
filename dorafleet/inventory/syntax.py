"""The syntax of texts in cluster.yml. Each function returns a valid text or raises TextError."""

from __future__ import annotations

import re
import string
from ipaddress import ip_address
from typing import TYPE_CHECKING

from dorad.dataflow.errors import TextError
from dorad.phrases import shorten

if TYPE_CHECKING:
    from dorafleet.inventory.model import Address

_WORD = frozenset(string.ascii_letters + string.digits + "_.-")
_LABEL = _WORD | frozenset("/:@+")
MAX_LABEL = 100
"""Characters of the name of a label, and of its value."""
_ENDPOINT = _LABEL | frozenset("[]#?=;&%")
_ENDPOINT_FORM = re.compile(r"[A-Za-z0-9_-]+/[^/?#]+:(?P<port>[0-9]{1,5})(?:[?#].*)?")
LINKS_USE = "tls/"
"""What the endpoints of links begin with."""


def machine_id(text: str) -> str:
    """Return the id of a machine."""
    _only(_WORD, text, "a machine's id", "letters, digits, `_`, `-` and `.`")
    return _no_dash(text, "a machine's id")


def label(text: str) -> str:
    """Return the name or the value of a label, which has at most `MAX_LABEL` characters."""
    if len(text) > MAX_LABEL:
        raise TextError(f"a label has at most {MAX_LABEL} characters, not {len(text)}")
    return _only(_LABEL, text, "a label", "letters, digits and `_.-/:@+`")


def endpoint(text: str) -> str:
    """Return an endpoint such as `tls/10.0.0.1:7447`."""
    example = "such as `tls/10.0.0.1:7447`"
    match = _ENDPOINT_FORM.fullmatch(_only(_ENDPOINT, text, "an endpoint", example))
    if match is None or not 0 < int(match["port"]) < 1 << 16:
        raise TextError(f"`{shorten(text)}` is not an endpoint", example)
    return text


def target(text: str) -> str:
    """Return a target of ssh: `host` or `user@host`."""
    user, at, host = text.rpartition("@")
    if at:
        user_name(user)
    _visible(host, "a host")
    return f"{user}{at}{_no_dash(host, 'a host')}"


def user_name(text: str) -> str:
    """Return the name of a user."""
    _visible(text, "a user")
    return _no_dash(text, "a user")


def address(text: str) -> Address:
    """Return an IP address of one machine."""
    try:
        parsed = ip_address(text)
    except ValueError:
        raise TextError(
            f"must be an IP address, not `{shorten(text)}`", "names are not looked up here"
        ) from None
    if parsed.is_unspecified or parsed.is_multicast:
        raise TextError(f"`{parsed}` is not the address of a machine", "robots connect to it")
    return parsed


def _only(allowed: frozenset[str], text: str, what: str, hint: str) -> str:
    if not text:
        raise TextError(f"{what} cannot be empty")
    bad = next((character for character in text if character not in allowed), None)
    if bad is not None:
        raise TextError(f"`{shorten(bad)}` is not allowed in {what}", hint)
    return text


def _visible(text: str, what: str) -> None:
    if not text:
        raise TextError(f"{what} cannot be empty")
    if not text.isprintable() or any(character.isspace() for character in text):
        raise TextError(f"{what} must not contain blanks: `{shorten(text)}`")


def _no_dash(text: str, what: str) -> str:
    if text.startswith("-"):
        raise TextError(f"{what} cannot start with `-`", "commands would take it for an option")
    return text
