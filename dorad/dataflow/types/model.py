"""Types as plain values: the structure of a message."""

from __future__ import annotations

from dataclasses import dataclass, field

STRUCT = "Struct"
LIST = "LargeList"

SCALARS = (
    "Null",
    "Boolean",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "UInt8",
    "UInt16",
    "UInt32",
    "UInt64",
    "Float16",
    "Float32",
    "Float64",
    "Utf8",
    "LargeUtf8",
    "Binary",
    "LargeBinary",
    "Date32",
    "Date64",
    "Timestamp",
    "Duration",
)
"""The names of Arrow types without children. Timestamp and Duration may have any unit."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """An Arrow type without children, by its name."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list with items of one type."""

    item: Shape

    def __str__(self) -> str:
        return f"List<{self.item}>"


@dataclass(frozen=True, slots=True)
class Named:
    """A reference to a type by its URN, without parameters."""

    urn: str

    def __str__(self) -> str:
        return self.urn


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a struct."""

    name: str
    shape: Shape
    nullable: bool = True
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Struct:
    """Named fields; None allows any fields."""

    fields: tuple[Field, ...] | None = None

    def __str__(self) -> str:
        return STRUCT


Shape = Scalar | ListOf | Named | Struct


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of a type; its value is any text."""

    name: str
    default: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class MetadataKey:
    """A metadata key of messages of the type, as documentation; nothing checks it."""

    key: str
    type: str | None = None
    required: bool = False
    description: str | None = None


@dataclass(frozen=True, slots=True)
class TypeDef:
    """The definition of a type."""

    urn: str
    shape: Shape
    description: str | None = None
    params: tuple[Param, ...] = ()
    metadata: tuple[MetadataKey, ...] = field(default=())

    @property
    def name(self) -> str:
        """The last part of the URN."""
        return self.urn.rpartition("/")[2]

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of a struct, an empty tuple for other types."""
        return (self.shape.fields or ()) if isinstance(self.shape, Struct) else ()

    @property
    def arrow(self) -> str:
        """The Arrow name: `Struct`, `UInt8`, `LargeList`."""
        return LIST if isinstance(self.shape, ListOf) else str(self.shape)
