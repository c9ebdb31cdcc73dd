"""Read the `inputs` of a node or operator: `id: source`, or a mapping with options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.dataflow.errors import TextError
from dorad.dataflow.fields import Fields
from dorad.dataflow.ids import check_data_id
from dorad.dataflow.model import Input, LogSource, QueuePolicy, Source, Timer
from dorad.dataflow.sources import parse_source

if TYPE_CHECKING:
    from dorad.dataflow.problems import Problems
    from dorad.dataflow.value import Value

DEFAULT_QUEUE_SIZE = 10
MAX_QUEUE_SIZE = 1 << 24
MIN_RATE_HZ = 0.001
MAX_RATE_HZ = 1e6


def read_inputs(owner: Fields) -> tuple[Input, ...]:
    """Return the inputs in the order of the file, without those that have no valid source.

    An unknown option is ignored with a warning; dora 1.x ignores it silently.
    """
    inputs: list[Input] = []
    for input_id, value in owner.entries("inputs").items():
        try:
            check_data_id(input_id)
        except TextError as error:
            owner.problems.error_in_name(value, error.message, error.hint)
        entry = _read_input(input_id, value, owner.problems)
        if entry is not None:
            inputs.append(entry)
    return tuple(inputs)


def _read_input(input_id: str, value: Value, problems: Problems) -> Input | None:
    if isinstance(value.data, str):
        try:
            return Input(input_id, parse_source(value.data))
        except TextError as error:
            problems.text_error(value, error)
            return None
    if not isinstance(value.data, dict):
        problems.error(
            value,
            f"must be a source, not {value.describe()}",
            "write `node/output`, or a mapping with `source` and options",
        )
        return None
    options = Fields(value, problems)
    source = None
    if options.required_text("source", "such as `node/output`"):
        source = options.checked("source", parse_source, None)
    policy = options.choice("queue_policy", QueuePolicy) or QueuePolicy.DROP_OLDEST
    size = _read_queue_size(options, policy)
    timeout = options.seconds("input_timeout", if_zero="with 0 the input breaks at once")
    latched = options.flag("latched") or False
    rate = options.number("max_rate_hz", minimum=MIN_RATE_HZ, maximum=MAX_RATE_HZ)
    options.finish(lenient=True)
    if source is None:
        return None
    _check_source(options, source, latched, rate)
    return Input(input_id, source, size, policy, timeout, True, latched, rate)


def _read_queue_size(options: Fields, policy: QueuePolicy) -> int:
    size = options.integer("queue_size", maximum=MAX_QUEUE_SIZE)
    if policy is QueuePolicy.LATEST:
        if size not in (None, 1):
            options.problems.error(
                options.name_of("queue_size"),
                f"must be 1 with `queue_policy: latest`, not {size}",
                "leave it out, or use `drop_oldest`",
            )
        return 1
    return DEFAULT_QUEUE_SIZE if size is None else max(size, 1)


def _check_source(options: Fields, source: Source, latched: bool, rate: float | None) -> None:
    """Report options that do not apply to the kind of source."""
    if latched and isinstance(source, Timer):
        options.problems.error_in_name(options.name_of("latched"), "a timer has no last value")
    elif latched and isinstance(source, LogSource):
        options.problems.error_in_name(
            options.name_of("latched"), "log lines are not kept", "`dora logs` shows earlier ones"
        )
    if rate is not None and isinstance(source, Timer):
        options.problems.error_in_name(
            options.name_of("max_rate_hz"),
            "the rate of a timer is in its source",
            f"write `source: dora/timer/hz/{rate:g}`",
        )
