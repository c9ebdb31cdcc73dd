"""The name of a type: `std/media/v1/Image`, or `std/media/v1/AudioFrame[sample_type=f32]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from dorad.dataflow.errors import TextError

_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_BASE = re.compile(rf"{_WORD}(/{_WORD})*")
_PARAM = re.compile(rf"\s*({_WORD})\s*=\s*([^\s,=\[\]](?:[^,=\[\]]*[^\s,=\[\]])?)\s*")
_HINT = "write it as `std/media/v1/Image` or `std/media/v1/AudioFrame[sample_type=f32]`"


@dataclass(frozen=True, slots=True)
class Urn:
    """A type with values for some of its parameters; the others may have any value."""

    base: str
    params: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The last part: `Image`."""
        return self.base.rpartition("/")[2]

    def __str__(self) -> str:
        if not self.params:
            return self.base
        return f"{self.base}[{','.join(f'{key}={value}' for key, value in self.params.items())}]"


def is_base(text: str) -> bool:
    """Return True if a text is a valid URN without parameters."""
    return _BASE.fullmatch(text) is not None


def parse_urn(text: str) -> Urn:
    """Parse a URN. Raises TextError."""
    base, bracket, rest = text.partition("[")
    if not _BASE.fullmatch(base) or (bracket and not rest.endswith("]")):
        raise TextError(f"`{text}` is not a valid type name", _HINT)
    params: dict[str, str] = {}
    for part in rest[:-1].split(",") if bracket else ():
        match = _PARAM.fullmatch(part)
        if match is None:
            raise TextError(f"`{text}`: `{part.strip()}` is not a parameter", _HINT)
        if match[1] in params:
            raise TextError(f"`{text}` gives the parameter `{match[1]}` twice")
        params[match[1]] = match[2]
    return Urn(base, params)
