"""Load one operator's file, create the operator, and reload both."""

from __future__ import annotations

import importlib.util
import linecache
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dorad.node.runtime.status import DoraStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from dorad.node.events import Event
    from dorad.node.runtime.config import OperatorEntry

    Send = Callable[..., None]

CLASS = "Operator"


class OperatorError(Exception):
    """An operator is not valid or has failed; the text names it and its file."""


class Program:
    """One operator: the module of its file, and an instance of the class `Operator` in it."""

    def __init__(self, entry: OperatorEntry) -> None:
        """Load the file and create the operator.

        Raises:
            OperatorError: this failed; its cause is the exception of the file, if any.
        """
        self.id = entry.id
        self.path = Path(entry.source)
        self._descriptor: dict[str, Any] | None = None
        self._module = self._load()
        self._operator = self._make()

    def describe(self, descriptor: dict[str, Any]) -> None:
        """Set the operator's `dataflow_descriptor`, the parsed dataflow file."""
        self._operator.dataflow_descriptor = descriptor

    def on_event(self, event: Event, send: Send) -> DoraStatus:
        """Pass an event to the operator and return its status.

        Raises:
            OperatorError: it raised an exception, or did not return a DoraStatus.
        """
        try:
            status = self._operator.on_event(event, send)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self._error(f"on_event failed on {_named(event)}: {_text(error)}") from error
        if not isinstance(status, DoraStatus):
            raise self._error(
                f"on_event returned {status!r} on {_named(event)}, not a DoraStatus; "
                "end it with `return DoraStatus.CONTINUE`"
            )
        return status

    def reload(self) -> None:
        """Reload the file, and create a new operator with the attributes of the old one.

        Raises:
            OperatorError: this failed; the old operator and module are unchanged.
        """
        before = dict(vars(self._module))
        try:
            self._execute(self._module)
            operator = self._make()
            vars(operator).update(vars(self._operator))
        except OperatorError:
            vars(self._module).clear()
            vars(self._module).update(before)
            raise
        self._operator = operator

    def _load(self) -> ModuleType:
        name = self.path.stem
        folder = str(self.path.parent)
        known = sys.modules.get(name)
        if known is not None and getattr(known, "__file__", None) == str(self.path):
            return known  # two operators of one file share its module, like any import
        if known is not None or not self._is_ours(name):
            # The name of a library must stay free: otherwise `import` would find this file.
            name = f"{name}@{self.id}"
        if folder not in sys.path:
            sys.path.append(folder)
        spec = importlib.util.spec_from_file_location(name, self.path)
        if spec is None:
            raise self._error("is not a Python file: its name must end in .py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        self._execute(module)
        return module

    def _is_ours(self, name: str) -> bool:
        """Return True if `import name` would find this file, or no module."""
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return False
        return spec is None or (spec.origin is not None and Path(spec.origin) == self.path)

    def _execute(self, module: ModuleType) -> None:
        """Run the file in its module; never from bytecode, which may be of an earlier edit."""
        linecache.checkcache(str(self.path))
        try:
            code = compile(self.path.read_bytes(), str(self.path), "exec", dont_inherit=True)
            exec(code, vars(module))  # noqa: S102 - the user's own file
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self._error(f"cannot be loaded: {_text(error)}") from error

    def _make(self) -> Any:
        kind = getattr(self._module, CLASS, None)
        if not isinstance(kind, type):
            raise self._error(f"has no class `{CLASS}`")
        if not callable(getattr(kind, "on_event", None)):
            old = hasattr(kind, "on_input")
            raise self._error(
                f"its class `{CLASS}` has no method `on_event(self, dora_event, send_output)`"
                + ("; `on_input` is from dora before 0.2 and is not called" if old else "")
            )
        try:
            return kind()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self._error(f"`{CLASS}()` failed: {_text(error)}") from error

    def _error(self, text: str) -> OperatorError:
        return OperatorError(f"operator {self.id!r} ({self.path}): {text}")


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _named(event: Event) -> str:
    return " ".join(str(event[key]) for key in ("type", "id") if key in event)
