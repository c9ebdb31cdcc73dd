"""The changes that can be made in one place of a module's source. Pure: from text to changes.

Skipped is what no test should depend on: texts for people, log lines, annotations, assertions for
the type checker or of equal lengths (`strict` of `zip`), and the value of a bound (a constant in
capitals at the level of the module).
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

COMPARISONS = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
}
ARITHMETIC = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "+"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "+"),
    ast.BitOr: ("|", "&"),
    ast.BitAnd: ("&", "|"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
}
BUILTINS = {"min": "max", "max": "min", "any": "all", "all": "any"}
LOGGERS = {"log", "logger", "_log", "_logger", "logging"}
SHOWN = 70
"""Characters of a changed text that are shown."""


@dataclass(frozen=True)
class Change:
    """One change: the bytes from `start` to `end` of a module become `text`."""

    line: int
    start: int
    end: int
    text: bytes
    function: str
    """The function or class around it, with dots; empty at the level of the module."""
    in_function: bool
    """Whether `function` is a function or a method."""
    source: str
    """The line, without its indent."""
    what: str
    """The change for people: `a < b -> a <= b`; numbered where a function has it twice."""

    def apply(self, source: bytes) -> bytes:
        """Return the changed module."""
        return source[: self.start] + self.text + source[self.end :]


def changes(source: bytes) -> list[Change]:
    """Return every change of a module, in the order of its lines."""
    collector = _Collector(source)
    collector.visit(ast.parse(source))
    made = sorted(collector.made, key=lambda each: (each.start, each.end, each.text))
    seen: Counter[tuple[str, str, str]] = Counter()
    for number, each in enumerate(made):
        key = (each.function, each.source, each.what)
        seen[key] += 1
        if seen[key] > 1:
            made[number] = replace(each, what=f"{each.what} ({seen[key]})")
    return made


class _Collector(ast.NodeVisitor):
    def __init__(self, source: bytes) -> None:
        self.source = source
        self.lines = source.decode().splitlines()
        self.offsets = [0]
        for line in source.splitlines(keepends=True):
            self.offsets.append(self.offsets[-1] + len(line))
        self.made: list[Change] = []
        self.names: list[str] = []
        self.inside: ast.AST | None = None
        """The innermost function or class."""

    # -- places -------------------------------------------------------------------------------

    def _start(self, node: ast.expr | ast.stmt) -> int:
        return self.offsets[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.offsets[node.end_lineno - 1] + node.end_col_offset

    def _add(self, whole: ast.expr | ast.stmt, start: int, end: int, text: str) -> None:
        """Add a change, shown as the change of the expression or statement around it."""
        before, after = self._start(whole), self._end(whole)
        old = self.source[before:after]
        new = self.source[before:start] + text.encode() + self.source[end:after]
        line = self.source.count(b"\n", 0, start) + 1
        self.made.append(
            Change(
                line=line,
                start=start,
                end=end,
                text=text.encode(),
                function=".".join(self.names),
                in_function=isinstance(self.inside, ast.FunctionDef | ast.AsyncFunctionDef),
                source=self.lines[line - 1].strip(),
                what=_difference(_words(old), _words(new)),
            )
        )

    def _operator(
        self, whole: ast.expr, left: ast.expr, right: ast.expr, old: str, new: str
    ) -> None:
        """Replace the operator between two operands; what else is there are brackets."""
        start, end = self._end(left), self._start(right)
        between = self.source[start:end]
        if b"#" in between or between.count(old.encode()) != 1:
            return
        at = start + between.index(old.encode())
        self._add(whole, at, at + len(old), new)

    # -- what is skipped ----------------------------------------------------------------------

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Skip a text for people."""

    def visit_Assert(self, node: ast.Assert) -> None:
        """Skip what only the type checker needs."""

    def visit_Module(self, node: ast.Module) -> None:
        for statement in node.body:
            if not _is_bound(statement):
                self.visit(statement)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._deleted(node, [node.target])
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        defaults = [each for each in (*node.args.defaults, *node.args.kw_defaults) if each]
        self._below(node, [*defaults, *node.body])

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._below(node, node.body)

    def _below(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, parts: Sequence[ast.AST]
    ) -> None:
        around, self.inside = self.inside, node
        self.names.append(node.name)
        for each in parts:
            self.visit(each)
        self.names.pop()
        self.inside = around

    # -- statements ---------------------------------------------------------------------------

    def visit_Expr(self, node: ast.Expr) -> None:
        if _is_log_line(node.value):
            return
        if isinstance(node.value, ast.Call):
            self._add(node, self._start(node), self._end(node), "pass")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._deleted(node, node.targets)
        self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        old, new = ARITHMETIC.get(type(node.op), ("", ""))
        if old:
            start, end = self._end(node.target), self._start(node.value)
            at = self.source.index(f"{old}=".encode(), start, end)
            self._add(node, at, at + len(old), new)
        self._deleted(node, [node.target])
        self.visit(node.value)

    def _deleted(self, node: ast.stmt, targets: list[ast.expr]) -> None:
        """Leave out an assignment to what already exists: the object stays as it was."""
        if all(isinstance(each, ast.Attribute | ast.Subscript) for each in targets):
            self._add(node, self._start(node), self._end(node), "pass")

    def visit_Delete(self, node: ast.Delete) -> None:
        self._add(node, self._start(node), self._end(node), "pass")

    def visit_Raise(self, node: ast.Raise) -> None:
        self._add(node, self._start(node), self._end(node), "pass")

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is None:
            self._add(node, self._start(node), self._end(node), "pass")
            return
        if not isinstance(node.value, ast.Constant):
            self._add(node, self._start(node.value), self._end(node.value), "None")
        self.visit(node.value)

    def visit_Continue(self, node: ast.Continue) -> None:
        self._add(node, self._start(node), self._end(node), "break")

    def visit_Break(self, node: ast.Break) -> None:
        self._add(node, self._start(node), self._end(node), "continue")

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        self._condition(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._condition(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._condition(test)
        self.generic_visit(node)

    def _condition(self, test: ast.expr) -> None:
        for value in ("True", "False"):
            self._add(test, self._start(test), self._end(test), value)

    # -- expressions --------------------------------------------------------------------------

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for operator, left, right in zip(node.ops, operands, operands[1:], strict=False):
            self._operator(node, left, right, *COMPARISONS[type(operator)])
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._operator(node, left, right, old, new)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            start = self._start(node)
            self._add(node, start, start + len("not"), "")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in ARITHMETIC and not (_is_text(node.left) or _is_text(node.right)):
            self._operator(node, node.left, node.right, *ARITHMETIC[type(node.op)])
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in BUILTINS:
            start, end = self._start(node.func), self._end(node.func)
            self._add(node, start, end, BUILTINS[node.func.id])
        if isinstance(node.func, ast.Name) and node.func.id == "replace":
            for keyword in node.keywords:
                self._left_out(node, keyword)
        for each in (node.func, *node.args, *node.keywords):
            if not (isinstance(each, ast.keyword) and each.arg == "strict"):
                self.visit(each)

    def _left_out(self, call: ast.Call, keyword: ast.keyword) -> None:
        """Leave a field as it was."""
        if keyword.arg is None:
            return
        start, end = self._start(keyword.value), self._end(keyword.value)
        start = self.source.rindex(keyword.arg.encode(), 0, start)
        rest = self.source[end : self._end(call)]
        end += len(rest) - len(rest.lstrip(b" \n)")) if rest.lstrip(b" \n)")[:1] == b"," else 0
        if self.source[end : end + 1] == b",":
            end += 1
        self._add(call, start, end, "")

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            text = str(not node.value)
        elif isinstance(node.value, int | float):
            text = str(node.value + 1)
        else:
            return
        self._add(node, self._start(node), self._end(node), text)


def _words(source: bytes) -> str:
    return " ".join(source.decode().split())


def _difference(old: str, new: str) -> str:
    """Return both texts, of long ones the part around the difference."""
    same = next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), len(new))
    start = max(0, same - SHOWN // 2) if max(len(old), len(new)) > SHOWN else 0
    shown = []
    for each in (old, new):
        text = each[start : start + SHOWN]
        before, after = "…" if start else "", "…" if start + SHOWN < len(each) else ""
        shown.append(f"{before}{text}{after}" if text else "nothing")
    return " -> ".join(shown)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _is_bound(statement: ast.stmt) -> bool:
    """Return True for an assignment of a number to a name in capitals."""
    if isinstance(statement, ast.Assign):
        targets: list[ast.expr] = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    else:
        return False
    return all(isinstance(each, ast.Name) and each.id.isupper() for each in targets)


def _is_log_line(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in LOGGERS
    )
