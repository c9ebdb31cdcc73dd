"""The text of a module with a builder and a reader for each type.

It depends on numpy and pyarrow alone, is the same for the same types, and formatters and strict
type checkers have nothing to say about it.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from dorad.dataflow.types.generate.names import class_names, field_names, function_name, snake
from dorad.dataflow.types.generate.shapes import Words
from dorad.dataflow.types.generate.special import SPECIAL
from dorad.dataflow.types.library import Library
from dorad.dataflow.types.model import ListOf, Named, Shape, Struct
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dorad.dataflow.types.model import Field, TypeDef

WIDTH = 88
_CUT = "# -- cut here --\n"
_HEAD = '''\
"""Builders and readers for typed messages; made by `dora types generate`.

A builder such as `image(...)` gives the array to send, a reader such as `Image(value)`
looks into one that was received. Neither copies arrays of numbers. Do not edit: make it
again when the types have changed.
"""

# mypy: disable-error-code="import-untyped"
# ruff: noqa

'''


def module_text(own: Iterable[TypeDef] = ()) -> str:
    """The module for the standard types and those of the user."""
    library = Library(sorted(own, key=lambda each: each.urn))
    types = list(_in_order(library))
    names = class_names(types)
    words = Words(library, names)
    prelude = resources.files(__package__).joinpath("prelude.py").read_text(encoding="utf-8")
    parts = [_HEAD + prelude.partition(_CUT)[2].rstrip()]
    for definition in types:
        parts += _Writer(definition, names[definition.urn], words).parts()
    return "\n\n\n".join(parts) + "\n"


def _in_order(library: Library) -> Iterator[TypeDef]:
    """All types, each after those that it names."""
    done: set[str] = set()

    def visit(definition: TypeDef) -> Iterator[TypeDef]:
        if definition.urn in done:
            return
        done.add(definition.urn)
        for urn in _names(definition):
            inner = library.get(urn)
            if inner is not None:
                yield from visit(inner)
        yield definition

    for definition in library:
        yield from visit(definition)


def _names(definition: TypeDef) -> Iterator[str]:
    shapes: list[Shape] = [field.shape for field in definition.fields] or [definition.shape]
    for shape in shapes:
        while isinstance(shape, ListOf):
            shape = shape.item
        if isinstance(shape, Named):
            yield shape.urn


class _Writer:
    """Writes what there is of one type."""

    def __init__(self, definition: TypeDef, name: str, words: Words) -> None:
        self._type = definition
        self._name = name
        self._words = words
        self._function = function_name(name)

    def parts(self) -> list[str]:
        shape = self._type.shape
        if isinstance(shape, Struct):
            fields = self._type.fields
            return [self._reader(fields), self._builder(fields)]
        return [self._whole_builder(), self._whole_reader()]

    def _about(self) -> str:
        """What the type is, fit for a docstring."""
        text = _sentence(self._type.description)
        return f"`{self._type.urn}`: {text}." if text else f"`{self._type.urn}`."

    # -- structs -----------------------------------------------------------------------------

    def _reader(self, fields: Sequence[Field]) -> str:
        lines = [
            f"class {self._name}(Reader):",
            f'    """{self._about()}"""',
            "",
            "    __slots__ = ()",
            f'    URN: ClassVar[str] = "{self._type.urn}"',
            *self._arrow_type(fields),
        ]
        for field, name in zip(fields, self._field_names(fields), strict=True):
            lines += [
                "",
                "    @property",
                *_property(name, self._words.reads(field.shape)),
                f'        """{_field_about(field)}"""',
                *self._read(field),
            ]
        dtype = self._numbers(fields)
        if dtype is not None:
            lines += [
                "",
                f"    def numpy(self) -> NDArray[{dtype}]:",
                '        """All fields as one array, which is a copy."""',
                "        values = [_any(*self._at(field.name)) for field in self.TYPE]",
                f"        return np.array(values, {dtype})",
            ]
        text = "\n".join(lines)
        special = SPECIAL.get(self._type.urn)
        return text if special is None else f"{text}\n\n{special.members.rstrip()}"

    def _field_names(self, fields: Sequence[Field]) -> list[str]:
        """The names of properties: none that is a type's within its class."""
        taken = (*self._words.class_names, *(("numpy",) if self._numbers(fields) else ()))
        return field_names((field.name for field in fields), taken)

    def _read(self, field: Field) -> list[str]:
        """The lines that read a field, which no formatter joins or splits."""
        name = _quoted(field.name)
        line = f"        return {self._words.read(field.shape, f'*self._at({name})')}"
        if len(line) <= WIDTH:
            return [line]
        place = "*self._at(field)"
        return [f"        field = {name}", f"        return {self._words.read(field.shape, place)}"]

    def _numbers(self, fields: Sequence[Field]) -> str | None:
        """The dtype that all fields have, where an array of them makes sense."""
        kinds = {self._words.kind(field.shape) for field in fields}
        if len(fields) < 2 or len(kinds) != 1:
            return None
        (kind,) = kinds
        return None if kind is None or kind.dtype == "np.bool_" else kind.dtype

    def _arrow_type(self, fields: Sequence[Field]) -> Iterator[str]:
        if not fields:
            yield "    TYPE: ClassVar[pa.DataType] = pa.struct([])"
            return
        yield "    TYPE: ClassVar[pa.DataType] = pa.struct("
        yield "        ["
        for field in fields:
            options = "" if field.nullable else ", nullable=False"
            arrow = self._words.arrow(field.shape)
            line = f"            pa.field({_quoted(field.name)}, {arrow}{options}),"
            if len(line) <= WIDTH:
                yield line
            else:
                yield "            pa.field("
                yield f"                {_quoted(field.name)},"
                yield f"                {arrow},"
                if options:
                    yield "                nullable=False,"
                yield "            ),"
        yield "        ]"
        yield "    )"

    def _builder(self, fields: Sequence[Field]) -> str:
        special = SPECIAL.get(self._type.urn)
        if special is not None:
            return special.builder.format(
                function=self._function, name=self._name, urn=self._type.urn
            ).rstrip()
        names = self._field_names(fields)
        head = [f"def {self._function}("]
        if not fields:
            head += ["    fields: dict[str, Any],", ") -> pa.StructArray:"]
        else:
            for field, name in zip(fields, names, strict=True):
                head.append(_fitting(f"    {name}: ", self._words.builds(field.shape), ","))
            head.append(") -> pa.StructArray:")
        lines = [*head, f'    """Build one `{self._type.urn}`."""']
        if not fields:
            return "\n".join([*lines, f"    return _one({self._name}.TYPE, fields)"])
        lines += ["    return _struct(", f"        {self._name}.TYPE,"]
        lines += [f"        {name}," for name in names]
        return "\n".join([*lines, "    )"])

    # -- everything else ---------------------------------------------------------------------

    def _whole_builder(self) -> str:
        shape = self._type.shape
        kind = self._words.kind(shape)
        arrow = self._words.arrow(shape)
        if kind is None:
            annotation, result = self._words.builds(shape), f"_one({arrow}, data)"
        elif kind.reader == "_bytes":
            annotation, result = "_BytesLike", "_binary(data)"
            if kind.arrow != "large_binary":
                result += f".cast({arrow})"
        elif kind.dtype not in (None, "np.bool_"):
            annotation, result = "ArrayLike", f"_array({arrow}, data)"
        else:
            annotation = f"{kind.builds} | Iterable[{kind.builds}]"
            one = "str" if kind.builds == "str" else None
            timely = kind.reader in ("_moment", "_span")
            order = f"{arrow}, values" if timely else f"values, {arrow}"
            items = f"[data] if isinstance(data, {one or _class_of(kind.builds)}) else list(data)"
            return "\n".join(
                [
                    f"def {self._function}(",
                    f"    data: {annotation},",
                    ") -> pa.Array:",
                    f'    """{self._about()}"""',
                    f"    values = {items}",
                    f"    return {'_times' if timely else 'pa.array'}({order})",
                ]
            )
        return "\n".join(
            [
                f"def {self._function}(",
                f"    data: {annotation},",
                ") -> pa.Array:",
                f'    """{self._about()}"""',
                f"    return {result}",
            ]
        )

    def _whole_reader(self) -> str:
        shape = self._type.shape
        kind = self._words.kind(shape)
        if kind is None:
            annotation, result = self._words.reads(shape), self._words.read(shape, "value, 0")
        elif kind.reader == "_bytes":
            annotation, result = "NDArray[np.uint8]", "_whole_bytes(value)"
        elif kind.dtype is not None:
            annotation, result = f"NDArray[{kind.dtype}]", f"_numbers(value, {kind.dtype})"
        else:
            annotation = f"list[{kind.reads}]"
            result = f"[{kind.reader}(value, at) for at in range(len(value))]"
        return "\n".join(
            [
                f"def read_{snake(self._name)}(value: pa.Array) -> {annotation}:",
                f'    """Read `{self._type.urn}`."""',
                f"    return {result}",
            ]
        )


def _class_of(annotation: str) -> str:
    return "type(None)" if annotation == "None" else annotation


def _property(name: str, annotation: str) -> list[str]:
    """The head of a property, in lines that no formatter joins or splits."""
    line = _fitting(f"    def {name}(self) -> ", annotation, ":")
    if len(line) <= WIDTH:
        return [line]
    return [f"    def {name}(", "        self,", _fitting("    ) -> ", annotation, ":")]


def _fitting(before: str, annotation: str, after: str) -> str:
    """The line; an annotation that is too long for it says only what is outermost."""
    line = f"{before}{annotation}{after}"
    if len(line) <= WIDTH or annotation.isidentifier():
        return line
    outermost, bracket, _ = annotation.partition("[")
    if not bracket or " | " in outermost:
        return f"{before}Any{after}"
    return f"{before}{outermost}[Any]{after}"


def _sentence(text: str | None) -> str:
    """A description on one line, fit for a docstring."""
    line = visible(" ".join((text or "").split()).rstrip("."))
    return line.replace("\\", "/").replace('"', "'")


def _field_about(field: Field) -> str:
    text = _sentence(field.description)
    name = f"The field `{_printable(field.name)}`"
    return f"{name}: {text}." if text else f"{name}."


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() and c not in '"\\' else "_" for c in name)


def _quoted(name: str) -> str:
    """A text as a formatter would write it: in double quotes, if it has none inside."""
    text = repr(name)
    return f'"{text[1:-1]}"' if text[0] == "'" and '"' not in name and "\\'" not in text else text
