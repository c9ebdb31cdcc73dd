"""The data plane's innermost steps in C: `module` is the extension, or None for pure Python.

`DORAD_NATIVE=0` turns it off; with `DORAD_NATIVE=1` it is an error if it cannot be used.
"""

from __future__ import annotations

import logging
import os
from importlib import import_module
from types import ModuleType

from dorad.problems import ProblemError
from dorad.shm import layout, stamp

VARIABLE = "DORAD_NATIVE"

_log = logging.getLogger(__name__)


class NativeError(ProblemError, ImportError):
    """The environment asks for an extension that cannot be used, or for something unknown."""


class _UnusableError(Exception):
    """The extension is not used; the message says why."""


def describe() -> str:
    """Return which of the two runs here: `native`, or `pure Python (why)`."""
    return "native" if module is not None else f"pure Python ({_why})"


def _choose() -> tuple[ModuleType | None, str]:
    wish = os.environ.get(VARIABLE, "")
    if wish not in ("", "0", "1"):
        raise NativeError("bad_variable", f"{VARIABLE} must be 0 or 1, not {wish!r}")
    if wish == "0":
        return None, f"{VARIABLE}=0"
    try:
        return _load(), ""
    except _UnusableError as error:
        if wish:
            hint = f"unset {VARIABLE} to run in pure Python"
            raise NativeError("native_unusable", f"{VARIABLE}=1, but {error}", hint) from error
        _log.debug("the data plane runs in pure Python: %s", error)
        return None, str(error)


def _load() -> ModuleType:
    name = stamp.NAME
    if not os.path.exists(f"{stamp.FOLDER}/{name}"):  # noqa: PTH110 - pathlib is slow to import
        raise _UnusableError(f"{name} is not built")
    try:
        if not _is_current():
            raise _UnusableError(f"{name} is older than its sources; run `make native`")
        module = import_module(f"{__name__}.{name.partition('.')[0]}")
    except (ImportError, OSError) as error:
        raise _UnusableError(f"{stamp.FOLDER}/{name} cannot be loaded: {error}") from error
    if wrong := _differences(module.LAYOUT, layout.constants()):
        raise _UnusableError(f"{name} has another layout: {wrong}")
    return module


def _is_current() -> bool:
    """Return True if the extension was compiled from the present sources, or there are none."""
    if stamp.fits() or not stamp.sources():
        return True
    from dorad.shm import abi  # it reads and hashes all sources

    return abi.is_current(abi.EXTENSION)


def _differences(compiled: dict[str, int], here: dict[str, int]) -> str:
    return ", ".join(
        f"{name} is {compiled.get(name)}, not {here.get(name)}"
        for name in sorted(compiled.keys() | here.keys())
        if compiled.get(name) != here.get(name)
    )


module, _why = _choose()
