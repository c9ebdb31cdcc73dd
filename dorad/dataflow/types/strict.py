"""Which findings about types keep a dataflow from running, and which are only told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.dataflow.problems import in_order
from dorad.dataflow.types.ports import is_typed

if TYPE_CHECKING:
    from dorad.dataflow.errors import Problem
    from dorad.dataflow.model import Dataflow

KEYS = frozenset(
    (
        *("input_types", "output_types", "output_metadata", "type_rules", "strict_types"),
        *("pattern", "input_patterns", "output_patterns"),
    )
)
"""The keys whose warnings are about types."""


def type_problems(dataflow: Dataflow, *, strict: bool = False) -> tuple[Problem, ...]:
    """What makes the dataflow unfit to run: all findings if it is, or asks to be, strict."""
    if not strict and not dataflow.strict_types:
        return ()
    named = (warning for warning in dataflow.warnings if about_types(warning))
    return in_order((*named, *_of_edges(dataflow)))


def change_problems(dataflow: Dataflow) -> tuple[Problem, ...]:
    """What forbids a dataflow that was read before, or changed since, if it asks to be strict.

    The type of an input that was disconnected does not.
    """
    return _of_edges(dataflow) if dataflow.strict_types else ()


def _of_edges(dataflow: Dataflow) -> tuple[Problem, ...]:
    if not is_typed(dataflow):
        return ()
    from dorad.dataflow.types.check import check_types  # most dataflows have no types

    findings = check_types(dataflow)
    return in_order((*findings.warnings, *findings.lacking))


def all_warnings(dataflow: Dataflow) -> tuple[Problem, ...]:
    """What is to be told before the dataflow runs, of types and everything else."""
    if not is_typed(dataflow):
        return dataflow.warnings
    from dorad.dataflow.types.check import check_types  # most dataflows have no types

    return in_order((*dataflow.warnings, *check_types(dataflow).warnings))


def about_types(problem: Problem) -> bool:
    """Whether a warning that was made while the file was read is about types."""
    return not KEYS.isdisjoint(problem.key.replace("[", ".").split("."))
