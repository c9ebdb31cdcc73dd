"""Encode plain JSON values as Arrow arrays without pyarrow.

`dora topic pub` of one number waits for this process to start, and importing pyarrow takes 0.1 s.
"""

from __future__ import annotations

from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dorad.shm.arrow import Encoded

# Type codes of `dorad.shm.arrow`, which imports pyarrow.
INT64_CODE = 4
FLOAT64_CODE = 11
BOOL_CODE = 14
TEXT_CODE = 100

_INT64 = range(-(1 << 63), 1 << 63)
_MAX_TEXT = (1 << 31) - 1


def encode_plain(value: Any) -> Encoded | None:
    """Encode a scalar, or a list of scalars of one type, as an array that can be sent.

    Return None for anything else, which needs pyarrow.
    """
    items = value if isinstance(value, list) else [value]
    kinds = {type(item) for item in items}
    if kinds == {int} and all(item in _INT64 for item in items):
        return _encoded(INT64_CODE, len(items), array("q", items).tobytes())
    if kinds == {float}:
        return _encoded(FLOAT64_CODE, len(items), array("d", items).tobytes())
    if kinds == {bool}:
        bits = sum(item << at for at, item in enumerate(items))
        return _encoded(BOOL_CODE, len(items), bits.to_bytes((len(items) + 7) >> 3, "little"))
    return _encode_texts(items) if kinds == {str} else None


def _encode_texts(items: list[str]) -> Encoded | None:
    try:
        texts = [item.encode() for item in items]
    except UnicodeEncodeError:
        return None
    ends = list(accumulate(map(len, texts), initial=0))
    if ends[-1] > _MAX_TEXT:
        return None
    table = array("i", ends).tobytes()
    table += bytes(-len(table) % 8)
    return _encoded(TEXT_CODE, len(items), table + b"".join(texts))


def _encoded(code: int, length: int, payload: bytes) -> Encoded:
    return (code, length, 0, len(payload), ((0, payload),))
