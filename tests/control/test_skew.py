"""Programs of two successive releases understand each other, whichever of them is newer."""

import json

import msgspec
import pytest

from dorad.control import codec
from dorad.control.errors import ControlError
from dorad.control.messages import METHODS
from dorad.control.messages.agent import AGENT_METHODS

EVERY = METHODS | AGENT_METHODS


def fields_of(kind):
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def optional(kind):
    return [name for name, field in fields_of(kind).items() if not field.required]


def sample(kind):
    """Return a message as JSON values with every field that has no default."""
    return {
        name: placeholder(field.type) for name, field in fields_of(kind).items() if field.required
    }


def placeholder(annotation):
    """Return a value of a type that the methods use for required fields."""
    for value in ("a" * 64, "text", 1, 1.0, True, [], {}, None):
        try:
            return msgspec.to_builtins(msgspec.convert(value, annotation))
        except msgspec.ValidationError:
            continue
    union = getattr(annotation, "__args__", ())
    for kind in (annotation, *union):
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return sample(kind)
        if hasattr(kind, "__args__") and isinstance(kind.__args__[0], str):
            return kind.__args__[0]
    raise AssertionError(annotation)


@pytest.mark.parametrize("name", sorted(EVERY))
def test_a_newer_client_is_understood_unless_it_uses_what_is_new(name):
    kind = EVERY[name].params
    message = msgspec.convert(sample(kind), kind)
    sent = json.loads(codec.encode_request(1, name, message))
    assert not set(sent["params"]) & set(optional(kind))
    for new in optional(kind):
        older = msgspec.defstruct(
            "Older",
            [
                (field.name, field.type)
                if field.required
                else (field.name, field.type, field.default)
                for field in msgspec.structs.fields(kind)
                if field.encode_name != new
                and (field.required or field.default is not msgspec.NODEFAULT)
            ],
            kw_only=True,
        )
        method = msgspec.structs.replace(EVERY[name], params=older)
        codec.decode_params(method, msgspec.Raw(json.dumps(sent["params"]).encode()))
        with pytest.raises(ControlError, match="has no parameter"):
            codec.decode_params(method, msgspec.Raw(json.dumps({new: None}).encode()))


@pytest.mark.parametrize("name", sorted(EVERY))
def test_a_newer_server_is_understood_and_an_older_one_too(name):
    kind = EVERY[name].result
    answer = sample(kind) | {"a_field_of_the_next_release": {"x": [1]}}
    found = msgspec.convert(answer, kind)
    for missing in optional(kind):
        assert hasattr(found, fields_of(kind)[missing].name)


def test_an_older_server_names_a_method_that_it_does_not_know():
    assert codec.unknown_method("lease.list", METHODS).code == "unknown-method"
