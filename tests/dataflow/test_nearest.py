"""Suggestions for misspelt words."""

from __future__ import annotations

import pytest

from dorad.dataflow.nearest import did_you_mean, nearest

_KEYS = ["path", "inputs", "outputs", "queue_size", "queue_policy", "restart_policy"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("pth", "path"),
        ("input", "inputs"),
        ("Outputs", "outputs"),
        ("queue-size", "queue_size"),
        ("queueSize", "queue_size"),
        ("restart", "restart_policy"),
        ("zzz", None),
        ("", None),
    ],
)
def test_nearest(word: str, meant: str | None) -> None:
    assert nearest(word, _KEYS) == meant


def test_the_hint() -> None:
    assert did_you_mean("pth", _KEYS) == "did you mean `path`?"
    assert did_you_mean("zzz", _KEYS) is None
    assert did_you_mean("zzz", []) is None
