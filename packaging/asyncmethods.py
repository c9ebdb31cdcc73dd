"""Generate dorad/control/asyncmethods.py from methods.py: `asyncmethods.py [--check]`.

With `--check` nothing is written; exit code 1 means that the file is out of date.
"""

import re
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "dorad/control"
SOURCE = PACKAGE / "methods.py"
TARGET = PACKAGE / "asyncmethods.py"
WIDTH = 100

_WORDS = {
    "as typed methods of a client.": "as typed methods of a client for asyncio.",
    "`asyncmethods.py` is generated from this file.": (
        "Generated from `methods.py` by `make generate`; do not edit."
    ),
    "import annotations\n\n": "import annotations\n\nimport asyncio\n",
    (
        "    from dorad.control.messages.method import P, R\n"
        "    from dorad.control.stream import Arrays, Stream\n"
    ): (
        "    from dorad.control.asyncstream import AsyncArrays, AsyncStream\n"
        "    from dorad.control.messages.method import P, R\n"
    ),
    "class Methods(": "class AsyncMethods(",
    "-> Stream[": "-> AsyncStream[",
    "-> Arrays:": "-> AsyncArrays:",
    "start_request(\n": "await asyncio.to_thread(\n            start_request,\n",
}
_METHOD = re.compile(r"(?<=\n)    def ")


def asynchronous(source: str) -> str:
    """Return the module for asyncio: methods that call the daemon become coroutines."""
    for old, new in _WORDS.items():
        if old not in source:
            sys.exit(f"{SOURCE}: {old!r} is no longer there; adapt {__file__}")
        source = source.replace(old, new)
    head, *methods = _METHOD.split(source)
    return head + "".join(map(_method, methods))


def _method(text: str) -> str:
    if not re.search(r"self\.call\(|^call\(", text):
        return f"    def {text}"
    # An attribute of the result needs the result first: put the await in brackets.
    text = re.sub(r"self\.call\((.*)\)(\.\w+)\n", r"(await self.call(\1))\2\n", text)
    text = re.sub(r"(?<!await )self\.call\(", "await self.call(", text)
    signature, body = text.split("\n", 1)
    if len(signature) > WIDTH - len("    async def "):
        signature = re.sub(r"^(\w+)\((.*)\)( -> .*)", r"\1(\n        \2\n    )\3", signature)
    return f"    async def {signature}\n{body}"


def main() -> None:
    """Write the module, or check it."""
    made = asynchronous(SOURCE.read_text(encoding="utf-8"))
    if sys.argv[1:] != ["--check"]:
        TARGET.write_text(made, encoding="utf-8")
    elif TARGET.read_text(encoding="utf-8") != made:
        sys.exit(f"{TARGET} does not match {SOURCE.name}; run `make generate`")


if __name__ == "__main__":
    main()
