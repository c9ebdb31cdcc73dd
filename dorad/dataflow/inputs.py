"""The `inputs` of a node or operator: short form `id: source` and long form with options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.dataflow.errors import TextError
from dorad.dataflow.fields import Fields
from dorad.dataflow.ids import check_data_id
from dorad.dataflow.model import Input, QueuePolicy
from dorad.dataflow.sources import parse_source

if TYPE_CHECKING:
    from dorad.dataflow.document import Value
    from dorad.dataflow.problems import Problems

DEFAULT_QUEUE_SIZE = 10
LARGEST_QUEUE_SIZE = 1 << 24


def read_inputs(owner: Fields) -> tuple[Input, ...]:
    """The inputs in the order of the file; those without a usable source are left out.

    Unlike dora 1.x, which ignores them, unknown options of the long form are errors: a misspelt
    `queue_size` would otherwise silently stay at its default.
    """
    inputs: list[Input] = []
    for input_id, value in owner.entries("inputs").items():
        try:
            check_data_id(input_id)
        except TextError as error:
            owner.problems.error_in_name(value, error.message, error.hint)
        found = _read_input(input_id, value, owner.problems)
        if found is not None:
            inputs.append(found)
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
    size = options.integer("queue_size", most=LARGEST_QUEUE_SIZE)
    policy = options.choice("queue_policy", QueuePolicy)
    timeout = options.seconds("input_timeout")
    options.finish()
    if source is None:
        return None
    return Input(
        input_id,
        source,
        DEFAULT_QUEUE_SIZE if size is None else max(size, 1),
        policy or QueuePolicy.DROP_OLDEST,
        timeout,
        long_form=True,
    )
