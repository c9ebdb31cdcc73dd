"""Makes the reference part of docs/control-api.md, and the AsyncAPI document beside it.

`make generate` writes both.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec

from dorad.control import messages as m
from dorad.control.schema import document, field_docs, summary_of

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "control-api.md"
ASYNCAPI = DOCS / "control-api.asyncapi.json"

_MADE = re.compile(r"(<!-- made from .*? -->\n).*(<!-- end -->\n)", re.DOTALL)
_HIDDEN = {
    "CallMethod",
    "FrameMethod",
    "Method",
    "StreamMethod",
    "Request",
    "Reply",
    "Hello",
    "Welcome",
    "Cancel",
    "Nothing",
}


def asyncapi() -> str:
    return json.dumps(document(), indent=2) + "\n"


def page(text: str) -> str:
    """Return the page with its reference part replaced."""
    assert _MADE.search(text), "the page has lost its markers"
    return _MADE.sub(lambda found: found[1] + "\n" + reference() + found[2], text)


def reference() -> str:
    return "".join(f"{line}\n" for line in [*_methods(), *_types()])


def _methods() -> Iterator[str]:
    yield from ("| method | parameters | returns |", "|---|---|---|")
    for name, method in m.METHODS.items():
        result = "nothing" if method.result is m.Nothing else _link(method.result)
        shown = f"a stream of {result}" if method.stream else result
        if method.binary:
            shown = f"a stream of [binary frames](#data) with {result}"
        yield f"| [`{name}`](#method-{name.replace('.', '')}) | {_brief(method.params)} | {shown} |"
    for name, method in m.METHODS.items():
        yield from ("", f"### Method {name}", "", _summary(method), "")
        if msgspec.structs.fields(method.params):
            yield from _fields(method.params)
        else:
            yield "It takes no parameters."


def _summary(method: m.AnyMethod) -> str:
    """Return the summary of a method, and that of its parameters unless methods share them."""
    sharing = [row for row in m.METHODS.values() if row.params is method.params]
    words = summary_of(method.params)
    if len(sharing) > 1 or _letters(words) == _letters(method.summary):
        return method.summary
    if _letters(words).startswith(_letters(method.summary)):
        return words
    return f"{method.summary} {words}"


def _letters(text: str) -> str:
    return re.sub(r"[^a-z ]", "", text.lower())


def _brief(params: type[m.Struct]) -> str:
    names = [
        f"`{field.encode_name}`" if field.required else f"`{field.encode_name}?`"
        for field in msgspec.structs.fields(params)
    ]
    return " ".join(names) or "none"


def _types() -> Iterator[str]:
    yield from ("", "## Types", "", "Times are seconds since 1970 (UTC), durations seconds, sizes")
    yield from ("bytes, unless stated otherwise. Fields with a default may be missing.",)
    used = {method.params for method in m.METHODS.values()}
    for _, kind in sorted(vars(m).items()):
        if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
            continue
        if kind is m.Struct or kind in used or kind.__name__ in _HIDDEN:
            continue
        yield from ("", f"### {kind.__name__}", "", summary_of(kind), "")
        yield from _fields(kind)


def _fields(kind: type[msgspec.Struct]) -> Iterator[str]:
    docs = field_docs(kind)
    yield from ("| field | type | default | |", "|---|---|---|---|")
    for field in msgspec.structs.fields(kind):
        row = [f"`{field.encode_name}`", _type(field.type), _default(field)]
        yield f"| {' | '.join([*row, docs.get(field.name, '')])} |"


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return ""
    made = field.default_factory is not msgspec.NODEFAULT
    value = msgspec.to_builtins(field.default_factory() if made else field.default)
    return f"`{json.dumps(value)}`"


_WORDS: dict[Any, str] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    type(None): "null",
    Any: "anything",
}


def _type(kind: Any) -> str:
    if kind in _WORDS:
        return _WORDS[kind]
    origin, args = getattr(kind, "__origin__", None), get_args(kind)
    if get_origin(kind) is Annotated:
        return _type(args[0])
    if origin is list:
        return f"list of {_type(args[0])}"
    if origin is dict:
        return "object" if args[1] is Any else f"object of {_type(args[1])}"
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _link(kind)
    if all(isinstance(word, str) for word in args):
        return " ".join(f"`{word}`" for word in args)
    return " or ".join(map(_type, args))


def _link(kind: type) -> str:
    return f"[{kind.__name__}](#{kind.__name__.lower()})"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    ASYNCAPI.write_text(asyncapi(), encoding="utf-8")
