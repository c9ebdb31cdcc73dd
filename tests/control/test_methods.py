"""The typed methods of the clients against the table of the API."""

import inspect

import pytest

from dorad.control import methods
from dorad.control.messages import METHODS

SOURCE_TEXT = inspect.getsource(methods)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_api_has_a_typed_one(name: str) -> None:
    assert f"Request(m.{name.upper().replace('.', '_')}, " in SOURCE_TEXT
