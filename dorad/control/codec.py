"""Encode structs as frames, and decode and check frames, with errors that name the wrong field."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from dorad.control.errors import ControlError
from dorad.control.messages import (
    CallMethod,
    Cancel,
    Error,
    Method,
    Nothing,
    Reply,
    Request,
    Struct,
    TopicHeader,
)
from dorad.int64 import Int64
from dorad.phrases import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dorad.control.messages.method import P, R

T = TypeVar("T")

CANCEL = CallMethod("cancel", "viewer", Cancel, Nothing, "End a running call or stream.")
"""The only method without a handler."""

_PLACE = re.compile(r"(.*) - at `\$\.?(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_SECONDS = ("grace", "timeout")
MAX_NUMBER = 10**308
"""Whole numbers in values of any type are below this, and above its negative: each is a float."""
_ALIGNMENT = 8
"""Arrow data starts at a multiple of this many bytes from the start of a frame."""

_encoder = msgspec.json.Encoder()


class Arrived(msgspec.Struct):
    """A text frame from the daemon. `result` and `event` are still undecoded, empty if absent."""

    id: Int64 | None = None
    welcome: str | None = None
    protocol: Int64 | None = None
    role: str = ""
    result: msgspec.Raw = msgspec.Raw(b"")
    event: msgspec.Raw = msgspec.Raw(b"")
    end: bool = False
    error: Error | None = None


class _Id(msgspec.Struct):
    id: Int64 | None = None


def encode(message: Struct) -> bytes:
    """Return a message as the JSON of a text frame."""
    return _encoder.encode(message)


def encode_reply(reply: Reply, largest: int) -> bytes:
    """Return a reply as JSON.

    Raises:
        ControlError: it has more than `largest` bytes.
    """
    frame = encode(reply)
    if len(frame) > largest:
        raise ControlError(
            "too-large", f"the answer has {len(frame)} bytes; {largest} are allowed", "request less"
        )
    return frame


def encode_request(id_: int, method: str, params: Struct) -> bytes:
    """Return a request as JSON, without the parameters that have their default.

    So an older daemon understands a newer client's request, unless it uses a new parameter.

    Raises:
        ControlError: a text is not UTF-8, such as a path in the letters of an old terminal.
    """
    given = {
        field.encode_name: value
        for field in _fields(type(params))
        if (value := getattr(params, field.name)) != _default(field)
    }
    try:
        return _encoder.encode({"id": id_, "method": method, "params": given})
    except UnicodeEncodeError as error:
        message = f"`{shorten(error.object)}` is not UTF-8"
        raise ControlError("bad-request", message, "rename it") from None


@cache
def _fields(kind: type[Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """Return the fields of a struct; msgspec evaluates all annotations each time."""
    return msgspec.structs.fields(kind)


def _default(field: msgspec.structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def decode(frame: str | bytes | memoryview | msgspec.Raw, kind: type[T], what: str) -> T:
    """Return the JSON of a frame as a struct; `what` names it in messages.

    Raises:
        ControlError: with code `bad-request`; names the wrong field and what was expected.
    """
    try:
        value = msgspec.json.decode(frame, type=kind)
        if _is_open(kind):  # type: ignore[arg-type]  # types are hashable
            _check_numbers(value, what)
        return value
    except msgspec.ValidationError as error:
        raise ControlError("bad-request", _wrong(str(error), kind, what)) from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ControlError("bad-request", f"{what} is not valid JSON: {error}") from None
    except RecursionError:
        raise ControlError("bad-request", f"{what} is nested too deeply") from None


@cache
def _is_open(kind: Any) -> bool:
    """Return True if values of this type hold others of any type, such as those of parameters."""
    seen: set[Any] = set()

    def walk(part: Any) -> bool:
        if part is Any:
            return True
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            if part in seen:
                return False
            seen.add(part)
            return any(walk(field.type) for field in msgspec.structs.fields(part))
        return any(walk(each) for each in get_args(part))

    return walk(kind)


def _check_numbers(value: Any, what: str) -> None:
    """Raise ControlError for a whole number anywhere in a value that no float can stand for.

    JSON allows one of 4,000 digits, which no figure, sum or plot takes.
    """
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, int):
            if not -MAX_NUMBER < each < MAX_NUMBER:
                message = f"{what} has a whole number of more than 308 digits"
                raise ControlError("bad-request", message)
        elif isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, list | tuple):
            waiting += each
        elif isinstance(each, msgspec.Struct):
            waiting += (getattr(each, name) for name in each.__struct_fields__)


def decode_request(frame: str) -> Request:
    """Return the request in a text frame.

    Raises:
        ControlError: with code `bad-request`.
    """
    return decode(frame, Request, "the request")


def id_of(frame: str) -> int | None:
    """Return the id of an invalid request, or None if it has none that can be read."""
    try:
        return msgspec.json.decode(frame, type=_Id).id
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def decode_params(method: Method[P, R], params: msgspec.Raw) -> P:
    """Return the parameters of a request.

    An unknown field is refused: a client that misspells one, or is newer than the daemon, must
    learn that it has no effect.

    Raises:
        ControlError: with code `bad-request`.
    """
    name = method.name
    known = [field.encode_name for field in msgspec.structs.fields(method.params)]
    for key in decode(params, dict[str, msgspec.Raw], f"`params` of `{name}`"):
        if key not in known:
            raise ControlError(
                "bad-request", f"`{name}` has no parameter `{key}`", _suggestion(key, known)
            )
    decoded = decode(params, method.params, f"`params` of `{name}`")
    for key in _SECONDS:
        seconds = getattr(decoded, key, None)
        if seconds is not None and seconds < 0:
            raise ControlError(
                "bad-request",
                f"`{key}` in `params` of `{name}` is {seconds:g}; it must not be negative",
            )
    return decoded


def unknown_method(name: str, methods: Iterable[str]) -> ControlError:
    """Return the error for a method that is not among these."""
    return ControlError(
        "unknown-method", f"there is no method `{name}`", _suggestion(name, tuple(methods))
    )


def _suggestion(word: str, words: Any) -> str:
    from dorad.dataflow.nearest import did_you_mean

    known = ", ".join(words)
    return did_you_mean(word, words) or (f"there are {known}" if known else "it takes none")


def _wrong(message: str, kind: type, what: str) -> str:
    """Reword an error of msgspec, such as "Expected `int`, got `str` - at `$.tail`"."""
    if missing := _MISSING.match(message):
        place = _PLACE.fullmatch(message)
        inside = f"{place[2]} in {what}" if place and place[2] else what
        return f"{inside} needs `{missing[1]}`"
    place = _PLACE.fullmatch(message)
    text, path = (place[1], place[2]) if place else (message, "")
    text = text[:1].lower() + text[1:]
    if text.startswith("invalid enum value"):
        text += f", expected one of {_choices(kind, path)}"
    return f"`{path}` in {what}: {text}" if path else f"{what}: {text}"


def _choices(kind: type, path: str) -> str:
    """Return the values that a field of Literal type may have."""
    for name in path.split("."):
        hint = get_type_hints(kind).get(name.partition("[")[0])
        for part in (hint, *get_args(hint)):
            if get_origin(part) is Literal:
                return ", ".join(f"`{word}`" for word in get_args(part))
            if isinstance(part, type):
                kind = part
    return "the values in the documentation"


def encode_data(header: TopicHeader, payload: bytes | memoryview) -> bytes:
    """Return a binary frame: the header's length, the header as JSON, an Arrow IPC stream.

    The length has 4 bytes, least significant first. The header ends in spaces that align the Arrow
    data.
    """
    text = _encoder.encode(header)
    text += b" " * (-(4 + len(text)) % _ALIGNMENT)
    return b"".join((len(text).to_bytes(4, "little"), text, payload))


def decode_data(frame: bytes) -> tuple[TopicHeader, memoryview]:
    """Return the header of a binary frame and a view of its Arrow data.

    Raises:
        ControlError: with code `bad-request`.
    """
    start = 4 + int.from_bytes(frame[:4], "little")
    if len(frame) < 4 or start > len(frame):
        raise ControlError("bad-request", "a binary frame is shorter than its header")
    view = memoryview(frame)
    return decode(view[4:start], TopicHeader, "the header of a binary frame"), view[start:]
