"""One operator's file: how it is loaded, made into an object, and loaded again."""

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
    """An operator is not as it must be; `str()` names it and its file."""


class Program:
    """An operator as an object of its file's class `Operator`."""

    def __init__(self, entry: OperatorEntry) -> None:
        """Load the file and make the operator.

        Raises:
            OperatorError: that cannot be done; its cause is the exception of the file, if any.
        """
        self.id = entry.id
        self.path = Path(entry.source)
        self._descriptor: dict[str, Any] | None = None
        self._module = self._load()
        self._operator = self._make()

    def describe(self, descriptor: dict[str, Any]) -> None:
        """Give the operator the dataflow's file as parsed."""
        self._operator.dataflow_descriptor = descriptor

    def on_event(self, event: Event, send: Send) -> DoraStatus:
        """Let the operator deal with an event.

        Raises:
            OperatorError: it raised an exception, or returned something else than a DoraStatus.
        """
        try:
            status = self._operator.on_event(event, send)
        except (Exception, SystemExit) as error:
            raise self._error(f"on_event failed on {_named(event)}: {_said(error)}") from error
        if not isinstance(status, DoraStatus):
            raise self._error(
                f"on_event returned {status!r} on {_named(event)}, which is no DoraStatus;"
                " end it with `return DoraStatus.CONTINUE`"
            )
        return status

    def reload(self) -> None:
        """Load the file anew and give a new operator the attributes of the old one.

        Raises:
            OperatorError: that cannot be done; then everything is as it was.
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

    # -- loading -----------------------------------------------------------------------------

    def _load(self) -> ModuleType:
        name = self.path.stem
        folder = str(self.path.parent)
        known = sys.modules.get(name)
        if known is not None and getattr(known, "__file__", None) == str(self.path):
            return known  # two operators of one file share its module, as for any import
        if known is not None or not self._is_ours(name):
            # To take the name of a library would hide it from everybody, this file included.
            name = f"{name}@{self.id}"
        if folder not in sys.path:
            sys.path.append(folder)
        spec = importlib.util.spec_from_file_location(name, self.path)
        if spec is None:
            raise self._error("is no Python file: its name must end in .py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        self._execute(module)
        return module

    def _is_ours(self, name: str) -> bool:
        """Whether `import name` would give nothing else than this file."""
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return False
        return spec is None or (spec.origin is not None and Path(spec.origin) == self.path)

    def _execute(self, module: ModuleType) -> None:
        """Run the file in its module; never from bytecode, which may be of an edit before."""
        linecache.checkcache(str(self.path))
        try:
            code = compile(self.path.read_bytes(), str(self.path), "exec", dont_inherit=True)
            exec(code, vars(module))  # noqa: S102 - this is what the user asks for
        except (Exception, SystemExit) as error:
            raise self._error(f"cannot be loaded: {_said(error)}") from error

    def _make(self) -> Any:
        kind = getattr(self._module, CLASS, None)
        if not isinstance(kind, type):
            raise self._error(f"has no class `{CLASS}`")
        if not callable(getattr(kind, "on_event", None)):
            old = hasattr(kind, "on_input")
            raise self._error(
                f"its class `{CLASS}` has no method `on_event(self, dora_event, send_output)`"
                + ("; `on_input` was that of dora before 0.2, and is not called" if old else "")
            )
        try:
            return kind()
        except (Exception, SystemExit) as error:
            raise self._error(f"`{CLASS}()` failed: {_said(error)}") from error

    def _error(self, text: str) -> OperatorError:
        return OperatorError(f"operator {self.id!r} ({self.path}): {text}")


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _named(event: Event) -> str:
    return " ".join(str(event[key]) for key in ("type", "id") if key in event)
