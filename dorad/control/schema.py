"""Make the AsyncAPI document of the control API from its structs and its table of methods.

`python -m dorad.control.schema` prints it.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from dorad.control import messages as m
from dorad.control.limits import MAX_REPLY, MAX_REQUEST

_SCHEMAS = "#/components/schemas/"
_MESSAGES = "#/components/messages/"
_CHANNEL = "#/channels/control"
_NUMBER = {"type": "integer", "description": "The request's id."}


def document() -> dict[str, Any]:
    """Return the AsyncAPI document, version 3.0.0, as dicts and lists."""
    messages = _messages()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "dorad control API",
            "version": f"{m.PROTOCOL}.0.0",
            "description": "How commands and programs talk to a dorad. docs/control-api.md has "
            "the rules that a document of this kind cannot express.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "localhost",
                "protocol": "ws",
                "description": "Over a Unix socket: $DORA_SOCKET, $XDG_RUNTIME_DIR/dora/"
                "control.sock, /tmp/dora-<uid>/control.sock or /run/dorad/control.sock.",
            }
        },
        "channels": {
            "control": {
                "address": "/",
                "description": f"One WebSocket connection. A frame has at most {MAX_REQUEST} "
                f"bytes from the client and {MAX_REPLY} from the daemon.",
                "messages": {name: {"$ref": _MESSAGES + name} for name in messages},
                "bindings": {"ws": {"method": "GET"}},
            }
        },
        "operations": _operations(),
        "components": {"messages": messages, "schemas": _schemas()},
    }


def _operations() -> dict[str, Any]:
    operations = {"hello": _operation("Introduce the client.", "hello", ["welcome", "error"])}
    for name, method in m.METHODS.items():
        last = ["end"] if method.stream else []
        answers = [_answer_name(name, method), *last, "error"]
        operations[name] = _operation(method.summary, f"{name}.request", answers)
    operations["cancel"] = _operation(
        "End a running call or stream.", "cancel.request", ["cancel.result", "error"]
    )
    return operations


def _operation(summary: str, request: str, answers: list[str]) -> dict[str, Any]:
    return {
        "action": "receive",
        "channel": {"$ref": _CHANNEL},
        "summary": summary,
        "messages": [{"$ref": f"{_CHANNEL}/messages/{request}"}],
        "reply": {
            "channel": {"$ref": _CHANNEL},
            "messages": [{"$ref": f"{_CHANNEL}/messages/{name}"} for name in answers],
        },
    }


def _messages() -> dict[str, Any]:
    messages = {
        "hello": _message("The first frame from the client.", _ref(m.Hello)),
        "welcome": _message("The first frame from the daemon.", _ref(m.Welcome)),
        "error": _message(
            "A request failed, or a stream ended because of an error.",
            _object({"id": _nullable(_NUMBER), "error": _ref(m.Error)}),
        ),
        "end": _message("A stream has ended.", _object({"id": _NUMBER, "end": {"const": True}})),
        "cancel.request": _request("cancel", m.Cancel, "End a running call or stream."),
        "cancel.result": _message(
            "The request is being ended, or has ended.",
            _object({"id": _NUMBER, "result": _ref(m.Nothing)}),
        ),
    }
    for name, method in m.METHODS.items():
        messages[f"{name}.request"] = _request(name, method.params, method.summary)
        messages[_answer_name(name, method)] = _answer(method)
    return messages


def _request(name: str, params: type[m.Struct], summary: str) -> dict[str, Any]:
    fields = {"id": _NUMBER, "method": {"const": name}, "params": _ref(params)}
    needed = any(field.required for field in msgspec.structs.fields(params))
    required = ["id", "method", "params"] if needed else ["id", "method"]
    return _message(summary, _object(fields, required))


def _answer_name(name: str, method: m.AnyMethod) -> str:
    return f"{name}.{'data' if method.binary else 'event' if method.stream else 'result'}"


def _answer(method: m.AnyMethod) -> dict[str, Any]:
    if method.binary:
        return {
            "summary": "A binary frame: 4 bytes with the length of the header, least significant "
            "first; the header as JSON; an Arrow IPC stream.",
            "contentType": "application/octet-stream",
            "headers": _ref(method.result),
            "payload": {"type": "string", "format": "binary"},
        }
    key = "event" if method.stream else "result"
    return _message(summary_of(method.result), _object({"id": _NUMBER, key: _ref(method.result)}))


def _message(summary: str, payload: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "payload": payload}


def _object(fields: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    needed = list(fields) if required is None else required
    return {"type": "object", "properties": fields, "required": needed}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _ref(kind: type) -> dict[str, Any]:
    return {"$ref": _SCHEMAS + kind.__name__}


def _schemas() -> dict[str, Any]:
    """Return the schemas of the structs by name, with docstrings as descriptions."""
    kinds: list[type] = [m.Hello, m.Welcome, m.Error, m.Cancel, m.Nothing]
    params = {method.params for method in m.METHODS.values()} | {m.Cancel}
    kinds += [kind for method in m.METHODS.values() for kind in (method.params, method.result)]
    _, schemas = msgspec.json.schema_components(
        dict.fromkeys(kinds), ref_template=_SCHEMAS + "{name}"
    )
    for name, schema in schemas.items():
        kind = getattr(m, name)
        schema["description"] = summary_of(kind)
        for field, words in field_docs(kind).items():
            schema["properties"][field] = {**schema["properties"][field], "description": words}
        if kind in params:
            schema["additionalProperties"] = False
    return dict(sorted(schemas.items()))


def summary_of(kind: type) -> str:
    """Return the docstring of a struct in one line."""
    return _line(kind.__doc__ or "")


def field_docs(kind: type) -> Mapping[str, str]:
    """Return the docstrings of a struct's fields by name."""
    return _docs(kind.__module__)[kind.__name__]


@cache
def _docs(module: str) -> dict[str, dict[str, str]]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: _class_docs(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _class_docs(node: ast.ClassDef) -> dict[str, str]:
    docs = {}
    for field, words in zip(node.body, node.body[1:], strict=False):
        match field, words:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                docs[name] = _line(text)
    return docs


def _line(text: str) -> str:
    """Return a docstring on one line, with JSON's `null` for Python's `None`."""
    return re.sub(r"\bNone\b", "null", re.sub(r"\s+", " ", text).strip())


if __name__ == "__main__":
    json.dump(document(), sys.stdout, indent=2)
    print()
