"""The raw figures of a run as one document, for keeping and comparing."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from hwtests.bench.cases import Plan
from hwtests.bench.stats import Figure, Key, summarise
from hwtests.bench.targets import Verdict, verdicts


def document(
    machine: dict[str, object], plan: Plan, figures: list[Figure], failures: list[str]
) -> dict[str, Any]:
    """Return every round of every figure with its median, and the verdicts."""
    return {
        "machine": machine,
        "plan": asdict(plan),
        "figures": list(_figures(figures)),
        "targets": [_verdict(verdict) for verdict in verdicts(summarise(figures))],
        "failures": failures,
    }


def _figures(figures: list[Figure]) -> Iterable[dict[str, Any]]:
    rounds: dict[Key, list[float]] = {}
    for figure in figures:
        rounds.setdefault(figure.key, []).append(figure.value)
    medians = summarise(figures)
    for key, values in rounds.items():
        yield asdict(key) | {
            "median": _short(medians[key]),
            "rounds": [_short(value) for value in values],
        }


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _verdict(verdict: Verdict) -> dict[str, Any]:
    target = verdict.target
    return {
        "measure": target.ours.measure,
        "size": target.ours.size,
        "metric": target.ours.metric,
        "got": _short(verdict.got),
        "wanted": target.wanted,
        "at_least": target.at_least,
        "unit": target.unit.strip(),
        "reached": verdict.reached,
        "text": str(verdict),
    }
