"""A method is declared once; its handlers and its tables derive from that."""

from collections.abc import AsyncIterator
from types import ModuleType

import pytest

from dorad.control import messages as m
from dorad.control.messages.method import by_name, defined_in
from dorad.control.session import Call, HandlerTable, handles

ONE = m.CallMethod("one.get", "viewer", m.Ref, m.Nothing, "Return one.")
OTHER = m.CallMethod("one.get", "admin", m.Nothing, m.Nothing, "Return another.")


class Part:
    @handles(ONE)
    async def answer(self, _call: Call, _params: m.Ref) -> m.Nothing:
        return m.Nothing()


class Other:
    @handles(m.WATCH)
    async def events(self, _call: Call, _params: m.Watch) -> AsyncIterator[m.Event]:
        yield m.Event(at=1.0, dataflow="u", what="node-started")

    async def no_answer(self) -> None:
        raise AssertionError


def test_the_methods_of_a_module_are_found() -> None:
    module = ModuleType("module")
    vars(module).update(ONE=ONE, again=ONE, number=1)
    assert by_name(defined_in(module)) == {"one.get": ONE}


def test_two_methods_with_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"there are two methods `one\.get`"):
        by_name([ONE, OTHER])


def test_two_handlers_of_one_method_are_refused() -> None:
    part = Part()
    with pytest.raises(ValueError, match=r"there are two handlers of `one\.get`"):
        HandlerTable.of(part, part)
    with pytest.raises(ValueError, match=r"there are two handlers of `one\.get`"):
        HandlerTable.of(part).include(HandlerTable.of(part))


def test_a_table_has_what_the_functions_of_objects_handle() -> None:
    part, other = Part(), Other()
    handlers = {"one.get": part.answer, "watch": other.events}
    assert HandlerTable.of(part, other) == handlers
    table = HandlerTable()
    table.include(HandlerTable.of(part), HandlerTable.of(other))
    assert table == handlers
