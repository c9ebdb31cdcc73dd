"""Print messages of every type of a package: their bytes as rclpy writes them, and their values."""

import json
import random
import sys
from importlib import import_module
from pathlib import Path

from rclpy.serialization import serialize_message
from rosidl_parser import definition as d

INTEGERS = {
    f"{sign}int{bits}": ((0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
    for sign in ("u", "")
    for bits in (8, 16, 32, 64)
}
LETTERS = "aZ0 äß€ハ\n"


def value_of(kind, rng):
    """Return a random value for a message's slot, and the same as plain data."""
    if isinstance(kind, d.BasicType):
        name = kind.typename
        if name == "boolean":
            value = rng.random() < 0.5
            return value, value
        if name in ("float", "double"):
            value = rng.choice([0.0, -1.5, 2.0**20 + 0.125])
            return value, value
        if name == "octet":
            value = rng.randrange(256)
            return bytes([value]), value
        low, high = INTEGERS[{"char": "uint8"}.get(name, name)]
        value = rng.choice([low, high, rng.randint(low, high)])
        return value, value
    if isinstance(kind, (d.AbstractString, d.AbstractWString)):
        most = min(kind.maximum_size if kind.has_maximum_size() else 12, 12)
        wide = isinstance(kind, d.AbstractWString)
        while True:
            value = "".join(rng.choices(LETTERS, k=rng.randrange(most + 1)))
            if wide or len(value.encode()) <= most:
                return value, value
    if isinstance(kind, d.NamespacedType):
        module = import_module(".".join(kind.namespaces))
        return filled(getattr(module, kind.name), rng)
    count = kind.size if isinstance(kind, d.Array) else rng.choice([0, 1, 2, 3])
    pairs = [value_of(kind.value_type, rng) for _ in range(count)]
    return [one for one, _ in pairs], [plain for _, plain in pairs]


def filled(cls, rng):
    message, plain = cls(), {}
    for name, kind in zip(cls.get_fields_and_field_types(), cls.SLOT_TYPES, strict=False):
        value, plain[name] = value_of(kind, rng)
        setattr(message, name, value)
    if list(plain) == ["structure_needs_at_least_one_member"]:
        message.structure_needs_at_least_one_member = 0
        plain = {}
    return message, plain


def main():
    rng = random.Random(7)
    prefix = Path(sys.prefix)
    parts = {
        "msg": [("", "")],
        "srv": [("_Request", "Request"), ("_Response", "Response")],
        "action": [("_Goal", "Goal"), ("_Result", "Result"), ("_Feedback", "Feedback")],
    }
    for package in sys.argv[1:]:
        for kind, members in parts.items():
            for file in sorted(prefix.glob(f"share/{package}/{kind}/*.json")):
                outer = getattr(import_module(f"{package}.{kind}"), file.stem)
                for suffix, attribute in members:
                    cls = getattr(outer, attribute) if attribute else outer
                    for _ in range(5):
                        message, plain = filled(cls, rng)
                        name = f"{package}/{kind}/{file.stem}{suffix}"
                        cdr = serialize_message(message).hex()
                        print(
                            json.dumps(
                                {"file": str(file), "name": name, "cdr": cdr, "value": plain}
                            )
                        )


main()
