"""An option for a duration such as `10`, `500ms`, `5m` or `1h30m`."""

from typing import TYPE_CHECKING, Any

import click

from dorad.dataflow.durations import parse_duration
from dorad.dataflow.errors import TextError

if TYPE_CHECKING:
    SecondsType = click.ParamType[float]
else:  # generic only in click's newer releases
    SecondsType = click.ParamType


class Duration(SecondsType):
    """An option for a duration of at least `minimum` seconds; the command gets seconds."""

    name = "duration"

    def __init__(self, minimum: float = 0.0) -> None:
        self._minimum = minimum

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds, or end the command with a usage error."""
        if isinstance(value, int | float):
            return float(value)
        try:
            seconds = parse_duration(value)
        except TextError as error:
            self.fail(str(error), param, ctx)
        if seconds < self._minimum:
            self.fail(f"'{value}' is less than {self._minimum:g} s", param, ctx)
        return seconds
