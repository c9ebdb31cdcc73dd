"""An extension of griffe: the methods of the clients, as callers see them."""

from __future__ import annotations

import re
from typing import Any

import griffe

_MODULE = re.compile(r"\b(?:builtins|m)\.")
"""Names of modules that only readers of the source know."""


class ClientMethods(griffe.Extension):
    """Shows a function that `Call` or `StreamCall` decorates as the method that it becomes.

    The function returns a `Request[T]`; the method returns `T`, or `Stream[T]`.
    """

    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        """Replace the annotations."""
        kinds = {str(decorator.value) for decorator in func.decorators}
        if not kinds & {"Call", "FileCall", "StreamCall"}:
            return
        assert isinstance(func.returns, griffe.ExprSubscript), f"{func.path} makes no request"
        result = _MODULE.sub("", str(func.returns.slice))
        func.returns = f"Stream[{result}]" if "StreamCall" in kinds else result
        for parameter in func.parameters:
            if parameter.annotation is not None:
                parameter.annotation = _MODULE.sub("", str(parameter.annotation))
