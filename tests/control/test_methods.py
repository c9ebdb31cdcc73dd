"""The typed methods of the clients against the table of the API."""

from __future__ import annotations

import inspect
import re

import pytest

from dorad.control.asyncmethods import AsyncMethods
from dorad.control.messages import METHODS
from dorad.control.methods import Methods

from .unasync import SOURCE, TARGET, asynchronous

SOURCE_TEXT = SOURCE.read_text(encoding="utf-8")


def test_the_methods_for_asyncio_are_made_from_the_others() -> None:
    made = asynchronous(SOURCE_TEXT)
    assert TARGET.read_text(encoding="utf-8") == made, "run `python -m tests.control.unasync`"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_api_has_a_typed_one(name: str) -> None:
    method = METHODS[name]
    params, result = method.params.__name__, method.result.__name__
    if method.binary:
        assert f"self.arrays(\n            m.{params}(" in SOURCE_TEXT
    elif method.stream:
        assert re.search(rf'self\.stream\("{name}", .*, m\.{result}\)', SOURCE_TEXT)
    else:
        assert re.search(rf'self\.call\("{name}", .*, m\.{result}\)', SOURCE_TEXT)


def test_both_clients_have_the_same_methods() -> None:
    def signatures(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(kind, inspect.isfunction)
        }

    assert signatures(Methods) == signatures(AsyncMethods)
