"""Read the keys that nodes and operators share: outputs, data types, build, log routing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.dataflow.fields import Fields, scalar_text, warn_twice
from dorad.dataflow.ids import check_data_id
from dorad.dataflow.nearest import did_you_mean
from dorad.dataflow.patterns import read_pattern, read_roles
from dorad.dataflow.settings import Logging, LogLevel, OutputFraming, Types
from dorad.dataflow.sizes import parse_size
from dorad.dataflow.words import build_commands

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dorad.dataflow.model import Input

TYPE_KEYS = (
    "output_types",
    "input_types",
    "output_framing",
    "output_metadata",
    "output_rates",
    "pattern",
    "input_patterns",
    "output_patterns",
)
LOG_KEYS = (
    "send_stdout_as",
    "send_logs_as",
    "min_log_level",
    "max_log_size",
    "max_rotated_files",
)
_DEFAULT_ROTATED_FILES = 5
MAX_RATE_HZ = 1e6


def read_outputs(owner: Fields) -> tuple[str, ...]:
    """Return the ids of the outputs, each once."""
    return owner.texts("outputs", check_data_id)


def read_build(owner: Fields) -> tuple[str, ...]:
    """Return the commands of `build`, one per line."""
    return owner.checked("build", build_commands, ())


def read_types(owner: Fields, inputs: tuple[Input, ...], outputs: tuple[str, ...]) -> Types:
    """Return the declared types of the ports; warn about ports that do not exist."""
    metadata = {}
    for key, value in owner.entries("output_metadata").items():
        items = value.data if isinstance(value.data, list) else [value]
        warn_twice(items, owner.problems)
        texts = (scalar_text(item, owner.problems) for item in items)
        metadata[key] = tuple(text for text in texts if text is not None)
    framing = {}
    framings = owner.inside("output_framing")
    if framings is not None:
        for output in framings.names:
            framing[output] = framings.choice(output, OutputFraming) or OutputFraming.ARROW_IPC
    rates = {}
    declared = owner.inside("output_rates")
    if declared is not None:
        for output in declared.names:
            rate = declared.number(output, minimum=0, maximum=MAX_RATE_HZ)
            if rate is not None:
                rates[output] = rate
    types = Types(
        owner.text_map("input_types"),
        owner.text_map("output_types"),
        framing,
        metadata,
        read_pattern(owner),
        read_roles(owner, "input_patterns"),
        read_roles(owner, "output_patterns"),
        rates,
    )
    for key in ("input_types", "input_patterns"):
        _warn_unknown_ports(owner, key, "inputs", [i.id for i in inputs])
    for key in TYPE_KEYS:
        if key.startswith("output_"):
            _warn_unknown_ports(owner, key, "outputs", outputs)
    return types


def _warn_unknown_ports(owner: Fields, key: str, ports: str, known: Iterable[str]) -> None:
    names = list(known)
    value = owner.take(key)
    for name, item in (value.data if value and isinstance(value.data, dict) else {}).items():
        if name not in names:
            owner.problems.warn(
                item, f"`{name}` is not among the {ports}", did_you_mean(name, names)
            )


def read_logging(owner: Fields, outputs: tuple[str, ...]) -> Logging:
    """Return the keys that route log lines."""
    for key in ("send_stdout_as", "send_logs_as"):
        target = owner.text(key)
        if target is not None and target not in outputs:
            owner.problems.error(
                owner.name_of(key),
                f"`{target}` is not among the outputs",
                did_you_mean(target, outputs) or f"add it: `outputs: [{target}]`",
            )
    rotated = owner.integer("max_rotated_files", minimum=1, maximum=100)
    max_size = owner.checked("max_log_size", parse_size, None)
    if max_size == 0:
        message = "with 0 the file is never rotated"
        owner.problems.warn(owner.name_of("max_log_size"), message, "write a size such as `10MB`")
    return Logging(
        owner.text("send_stdout_as"),
        owner.text("send_logs_as"),
        owner.choice("min_log_level", LogLevel, any_case=True),
        max_size,
        _DEFAULT_ROTATED_FILES if rotated is None else rotated,
    )
