"""Which operators of a process make no call, from what they report themselves."""

from hypothesis import given
from hypothesis import strategies as st

from dorad.node.runtime.pulse import Calls


def test_an_operator_that_works_without_a_call_is_returned_once() -> None:
    calls = Calls(["a", "b", "c", "idle"])
    calls.begin("a")
    calls.begin("b")
    calls.begin("c")
    found = []
    for _ in range(5):
        calls.beat("b")
        calls.rest("c")
        calls.begin("c")
        found.append(calls.check(2))
    assert found == [[], [], ["a"], [], []]
    for each in ("a", "b", "c"):
        calls.rest(each)
    assert calls.check(2) == []
    calls.begin("a")
    assert [calls.check(2) for _ in range(3)] == [[], [], ["a"]]


@given(st.lists(st.sampled_from(["event", "beat", "end", "check"]), max_size=60))
def test_only_an_operator_without_a_call_between_three_checks_is_returned(acts: list[str]) -> None:
    calls, works, quiet = Calls(["a"]), False, 0
    for act in acts:
        if act == "check":
            quiet = quiet + 1 if works else 0
            assert calls.check(2) == (["a"] if quiet == 3 else [])
            continue
        if act == "event" and not works:
            calls.begin("a")
        elif act == "beat" and works:
            calls.beat("a")
        elif act == "end" and works:
            calls.rest("a")
        else:
            continue
        works, quiet = act != "end", 0
