"""Decorators for what exists twice: in Python, and in the extension of `dorad.shm.native`.

The fields of a class that native steps read lie in a base class, `...State`, which `twin` replaces
by the native type of that name. A method with a native twin is a `step`: the native one runs first,
and calls the Python one for every case that is not its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from dorad.shm import native

_Class = TypeVar("_Class", bound=type)
_Method = TypeVar("_Method", bound="Callable[..., Any]")


def twin(pure: _Class) -> _Class:
    """Return the native type of the same name; without the extension, the class itself."""
    if native.module is None:
        return pure
    compiled: _Class = getattr(native.module, pure.__name__)
    return compiled


def step(method: _Method) -> _Method:
    """Return the native step that falls back to a method; without the extension, the method."""
    if native.module is None:
        return method
    compiled: _Method = native.module.step(method)
    return compiled
