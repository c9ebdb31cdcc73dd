"""A method is declared once; its handlers and its tables derive from that."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from dorad.control import messages as m
from dorad.control.messages.method import by_name, defined_in
from dorad.control.session import Call, HandlerTable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ONE = m.CallMethod("one.get", "viewer", m.Ref, m.Nothing, "Return one.")
OTHER = m.CallMethod("one.get", "admin", m.Nothing, m.Nothing, "Return another.")


async def answer(_call: Call, _params: m.Ref) -> m.Nothing:
    return m.Nothing()


def test_the_methods_of_a_module_are_found() -> None:
    module = ModuleType("module")
    vars(module).update(ONE=ONE, again=ONE, number=1)
    assert by_name(defined_in(module)) == {"one.get": ONE}


def test_two_methods_with_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"there are two methods `one\.get`"):
        by_name([ONE, OTHER])


def test_two_handlers_of_one_method_are_refused() -> None:
    table, other = HandlerTable(), HandlerTable()
    table.call(ONE, answer)
    other.call(ONE, answer)
    with pytest.raises(ValueError, match=r"there are two handlers of `one\.get`"):
        table.call(ONE, answer)
    with pytest.raises(ValueError, match=r"there are two handlers of `one\.get`"):
        table.include(other)


def test_a_table_has_the_handlers_of_the_tables_that_it_includes() -> None:
    async def events(_call: Call, _params: m.Watch) -> AsyncIterator[m.Event]:
        yield m.Event(at=1.0, dataflow="u", what="node-started")

    parts = HandlerTable(), HandlerTable()
    parts[0].call(ONE, answer)
    parts[1].stream(m.WATCH, events)
    table = HandlerTable()
    table.include(*parts)
    assert table == {"one.get": answer, "watch": events}
