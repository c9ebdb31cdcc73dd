"""Parameters of nodes as rows."""

from dorad.control.filters import Value
from dorad.control.messages import Param
from dorad.control.paramtext import allowed_text, json_text
from dorafleet.console.view.rows import Cell, Column, Row

COLUMNS = (
    Column("parameter", "PARAMETER", 16, grow=1, most=32),
    Column("node", "NODE", 16, grow=1, most=40),
    Column("value", "VALUE", 14, grow=2),
    Column("type", "TYPE", 6, drop=2),
    Column("default", "DEFAULT", 10, grow=1, drop=3),
    Column("allowed", "ALLOWED", 12, grow=1, drop=1),
    Column("description", "DESCRIPTION", 20, grow=4, drop=4),
)
KEYS = tuple(column.key for column in COLUMNS)


def cells(node: str, param: Param) -> dict[str, Value]:
    """Return the cells by which parameters are filtered."""
    value = param.value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {
        "parameter": param.key,
        "node": node,
        "value": value if number else json_text(value),
        "type": param.type or "",
        "default": json_text(param.default) if param.declared else "",
        "allowed": allowed_text(param),
        "description": param.description or "",
    }


def row(id_: str, node: str, param: Param) -> Row:
    """Return the row of a parameter; its value is highlighted where it is not the default."""
    changed = not param.declared or param.value != param.default
    return Row(
        id_,
        (
            Cell(param.key, "name"),
            Cell(node),
            Cell(json_text(param.value), "title" if changed else ""),
            Cell(param.type or "-", "dim"),
            Cell(json_text(param.default) if param.declared else "-", "dim"),
            Cell(allowed_text(param) or "-", "dim"),
            Cell(param.description or "-", "dim"),
        ),
    )
