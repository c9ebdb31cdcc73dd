"""Suggestions for misspelt words."""

import pytest

from dorad.dataflow.nearest import did_you_mean, near, nearest

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


def test_a_word_that_is_no_name_is_near_nothing() -> None:
    """A client may ask for a robot with a name of 4 MB: to compare it took two seconds."""
    word = "a" * 501
    assert nearest(word, [word]) is None
    assert near(word, [word]) is None
