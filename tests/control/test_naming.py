"""Finding the dataflow that a user names."""

from dataclasses import dataclass

import pytest

from dorad.control.errors import ControlError
from dorad.control.naming import check_name, find


@dataclass
class Entry:
    uuid: str
    name: str | None
    running: bool


U = [f"{n:08d}-0000-4000-8000-000000000000" for n in range(6)]
KNOWN = [
    Entry(U[0], "arm", False),
    Entry(U[1], "arm", True),
    Entry(U[2], None, True),
    Entry(U[3], "leg", False),
    Entry(U[4], "leg", False),
]


@pytest.mark.parametrize(
    ("wanted", "ended_too", "place"),
    [
        ("arm", False, 1),
        ("arm", True, 1),
        (U[0], False, 0),
        (U[3], False, 3),
        ("leg", True, 4),
    ],
)
def test_a_dataflow_is_found_by_name_or_uuid(wanted: str, ended_too: bool, place: int) -> None:
    assert find(KNOWN, wanted, ended_too=ended_too) == place


@pytest.mark.parametrize(
    ("wanted", "code", "word"),
    [
        (None, "ambiguous", "2 dataflows run"),
        ("leg", "not-found", U[4]),
        ("nobody", "not-found", "there are: arm"),
        (U[5], "not-found", U[5]),
    ],
)
def test_an_ambiguous_name_is_an_error(wanted: str | None, code: str, word: str) -> None:
    with pytest.raises(ControlError, match=word) as raised:
        find(KNOWN, wanted)
    assert raised.value.code == code


def test_without_a_name_the_only_running_dataflow_or_the_last_one_is_used() -> None:
    assert find(KNOWN[:2], None) == 1
    assert find(KNOWN[3:], None, ended_too=True) == 1
    with pytest.raises(ControlError, match="no dataflow runs"):
        find(KNOWN[3:], None)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 65, "-x", U[0], "arm"])
def test_names_are_checked(name: str) -> None:
    with pytest.raises(ControlError):
        check_name(name, KNOWN)


@pytest.mark.parametrize("name", ["leg", "a.b-c_1"])
def test_a_name_is_free_once_its_dataflow_has_ended(name: str) -> None:
    check_name(name, KNOWN)
