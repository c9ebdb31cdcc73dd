"""`dora types`: list, show and generate code for the data types of inputs and outputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from dorad.cli.files import DEFAULTS, DataflowFile, load_dataflow, write_text
from dorad.cli.groups import Group
from dorad.cli.tables import print_object, print_table
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dorad.dataflow.types.library import Library
    from dorad.dataflow.types.model import TypeDef

COLUMNS = ("Type", "Arrow", "Parts", "Description")

EPILOG = """\b
Examples:
  dora types list
  dora types show std/media/v1/Image
  dora types generate dataflow.yml -o messages.py
"""


@click.group("types", cls=Group, epilog=EPILOG)
def types() -> None:
    """List data types, and generate a Python module for them."""


path_argument = click.argument("path", metavar="[PATH]", type=DataflowFile(), required=False)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

LIST_EPILOG = """\b
Examples:
  dora types list
  dora types list robot/dataflow.yml --json

Your own types are the files in `types/` beside PATH, or in the current directory without PATH.
"""


@types.command("list", epilog=LIST_EPILOG)
@path_argument
@json_option
def list_types(path: Path | None, *, as_json: bool) -> None:
    """List the standard types and your own."""
    library = load_library(path)
    if as_json:
        print_object([as_plain(found) for found in library])
    else:
        print_table(COLUMNS, (_as_row(found) for found in library))


def _complete_urn(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    del param
    from dorad.dataflow.errors import DataflowError

    try:
        library = load_library(ctx.params.get("path"))
    except (DataflowError, OSError):
        return []
    return [
        CompletionItem(found.urn, help=found.description)
        for found in library
        if found.urn.startswith(incomplete)
    ]


SHOW_EPILOG = """\b
Examples:
  dora types show std/media/v1/Image
  dora types show Image
  dora types show acme/arm/v1/Joint robot/dataflow.yml --json
"""


@types.command("show", epilog=SHOW_EPILOG)
@click.argument("urn", shell_complete=_complete_urn)
@path_argument
@json_option
def show_type(urn: str, path: Path | None, *, as_json: bool) -> None:
    """Show the definition of the type URN. Its last word is enough if it is unique."""
    found = find(load_library(path), urn)
    if as_json:
        print_object(as_plain(found))
        return
    for line in detail_lines(found):
        click.echo(visible(line))


def detail_lines(found: TypeDef) -> Iterator[str]:
    """Yield the lines of `dora types show`."""
    yield found.urn
    if found.description:
        yield f"  {found.description}"
    yield f"  arrow: {found.shape}"
    if found.fields:
        width = max(len(field.name) for field in found.fields)
        yield "  fields:"
        for field in found.fields:
            note = "" if field.nullable else "  (never null)"
            note += f"  {field.description}" if field.description else ""
            yield f"    {field.name:{width}}  {field.shape}{note}"
    for param in found.params:
        default = f" = {param.default}" if param.default is not None else ""
        about = f": {param.description}" if param.description else ""
        yield f"  parameter {param.name}{default}{about}"
    for key in found.metadata:
        kind = f" ({key.type})" if key.type else ""
        about = f": {key.description}" if key.description else ""
        yield f"  metadata {key.key}{kind}{about}"


GENERATE_EPILOG = """\b
Examples:
  dora types generate -o messages.py
  dora types generate robot/dataflow.yml --output robot/messages.py

\b
The module needs only numpy and pyarrow. The same types give the same module: keep it with the
nodes, and generate it again when the types change.
"""


@types.command("generate", epilog=GENERATE_EPILOG)
@path_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write  [default: standard output].",
)
def generate(path: Path | None, *, output: Path | None) -> None:
    """Generate a Python module that builds and reads messages.

    It has the standard types and those of the dataflow PATH, by default `dataflow.yml` here if it
    exists.
    """
    from dorad.dataflow.types.generate.module import module_text

    text = module_text(load_library(path).own)
    if output is None:
        click.echo(text, nl=False)
        return
    write_text(output, text)
    click.echo(f"wrote {output}")


def load_library(path: Path | None) -> Library:
    """Return the types of a dataflow, by default of the one in the current directory.

    Raises DataflowError if they are invalid.
    """
    from dorad.dataflow.types.library import Library
    from dorad.dataflow.types.user import read_user_types

    path = path or next((Path(name) for name in DEFAULTS if Path(name).is_file()), None)
    if path is None:
        return Library(read_user_types(Path()))
    own = {found.urn: found for found in read_user_types(path.parent)}
    own |= {found.urn: found for found in load_dataflow(path).own_types}
    return Library(own[urn] for urn in sorted(own))


def find(library: Library, text: str) -> TypeDef:
    """Return the type with this URN or short name. Raises click.ClickException if there is none."""
    from dorad.dataflow.errors import TextError
    from dorad.dataflow.types.urn import parse_urn

    try:
        base = parse_urn(text).base
    except TextError as error:
        raise click.ClickException(f"{error.message}; {error.hint}") from error
    short = library.short(base)
    found = library.get(short[0] if len(short) == 1 else base)
    if found is None and short:
        raise click.ClickException(f"there are several types `{base}`: {', '.join(short)}")
    if found is None:
        hint = library.hint(base)
        raise click.ClickException(f"there is no type `{base}`{f' ({hint})' if hint else ''}")
    return found


def as_plain(found: TypeDef) -> dict[str, Any]:
    """Return the JSON form of a type: its URN and its definition."""
    from dorad.dataflow.types.definitions import plain_definition

    return {"urn": found.urn, **plain_definition(found)}


def _as_row(found: TypeDef) -> tuple[str, ...]:
    from dorad.dataflow.types.model import ListOf

    parts = ", ".join(field.name for field in found.fields)
    if isinstance(found.shape, ListOf):
        parts = str(found.shape.item)
    return found.urn, found.arrow, parts, found.description or ""
