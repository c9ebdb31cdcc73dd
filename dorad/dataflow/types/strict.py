"""Decide which findings about types are errors and which are warnings."""

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
    """Return the findings that prevent a run: all if `strict` or the dataflow's own setting."""
    if not strict and not dataflow.strict_types:
        return ()
    named = (warning for warning in dataflow.warnings if about_types(warning))
    return in_order((*named, *_of_edges(dataflow)))


def change_problems(dataflow: Dataflow) -> tuple[Problem, ...]:
    """Return the findings that prevent a change of a running dataflow with `strict_types`.

    The type of a disconnected input is ignored.
    """
    return _of_edges(dataflow) if dataflow.strict_types else ()


def _of_edges(dataflow: Dataflow) -> tuple[Problem, ...]:
    if not is_typed(dataflow):
        return ()
    from dorad.dataflow.types.check import check_types  # most dataflows have no types

    findings = check_types(dataflow)
    return in_order((*findings.warnings, *findings.lacking))


def all_warnings(dataflow: Dataflow) -> tuple[Problem, ...]:
    """Return all warnings to show before the dataflow runs, about types and anything else."""
    if not is_typed(dataflow):
        return dataflow.warnings
    from dorad.dataflow.types.check import check_types  # most dataflows have no types

    return in_order((*dataflow.warnings, *check_types(dataflow).warnings))


def about_types(problem: Problem) -> bool:
    """Return True if a warning from reading the file is about types."""
    return not KEYS.isdisjoint(problem.key.replace("[", ".").split("."))
