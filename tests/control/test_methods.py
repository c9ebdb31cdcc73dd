"""The typed methods of the clients against the table of the API."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from dorad.control import methods
from dorad.control.asyncmethods import AsyncMethods
from dorad.control.messages import METHODS
from dorad.control.methods import Methods

GENERATOR = Path(__file__).parents[2] / "packaging/asyncmethods.py"
SOURCE_TEXT = inspect.getsource(methods)


def test_the_methods_for_asyncio_are_generated_from_the_others() -> None:
    command = [sys.executable, str(GENERATOR), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_api_has_a_typed_one(name: str) -> None:
    method = METHODS[name]
    params, constant = method.params.__name__, name.upper().replace(".", "_")
    if method.binary:
        assert f"self.arrays(\n            m.{params}(" in SOURCE_TEXT
    elif method.stream:
        assert f"self.stream(m.{constant}, " in SOURCE_TEXT
    else:
        assert f"self.call(m.{constant}, " in SOURCE_TEXT


def test_both_clients_have_the_same_methods() -> None:
    def signatures(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(kind, inspect.isfunction)
        }

    assert signatures(Methods) == signatures(AsyncMethods)
