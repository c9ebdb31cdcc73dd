"""Options for sizes in bytes, and for a size or a duration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import click

from dorad.dataflow.durations import parse_duration
from dorad.dataflow.errors import TextError
from dorad.dataflow.sizes import parse_size

if TYPE_CHECKING:
    SizeType = click.ParamType[int]
    SplitType = click.ParamType["Split"]
else:  # generic only in click's newer releases
    SizeType = SplitType = click.ParamType


class Split(NamedTuple):
    """Where a recording continues in the next file: at a size in bytes, or after a time."""

    size: int | None
    seconds: float | None


class Size(SizeType):
    """A size such as `64MB`; the command gets bytes."""

    name = "size"

    def __init__(self, minimum: int = 0) -> None:
        self._minimum = minimum

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes, or end the command with a usage error."""
        if isinstance(value, int):
            return value
        try:
            size = parse_size(value)
        except TextError as error:
            self.fail(f"{error.message}" + (f"; {error.hint}" if error.hint else ""), param, ctx)
        if size < self._minimum:
            self.fail(f"'{value}' is less than {self._minimum} bytes", param, ctx)
        return size


MIN_SPLIT_BYTES = 1 << 20
MIN_SPLIT_S = 1.0


class SplitAt(SplitType):
    """A size such as `500MB`, or a duration such as `5m`."""

    name = "split"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Split:
        """Return the size or the seconds, or end the command with a usage error."""
        if isinstance(value, Split):
            return value
        try:
            seconds = parse_duration(value)
        except ValueError:
            seconds = None
        if seconds is not None and not str(value).strip().isdecimal():
            if seconds < MIN_SPLIT_S:
                self.fail(f"'{value}' is less than {MIN_SPLIT_S:g} s", param, ctx)
            return Split(None, seconds)
        try:
            size = parse_size(value)
        except TextError:
            self.fail(f"'{value}' is neither a size (500MB) nor a time (5m)", param, ctx)
        if size < MIN_SPLIT_BYTES:
            self.fail(f"'{value}' is less than 1MB (write a time with its unit: 5m)", param, ctx)
        return Split(size, None)
