"""`dora types`: list, show and generate code for the data types of inputs and outputs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from dorad.commandline.files import DEFAULTS, DataflowFile, load_dataflow, write_text
from dorad.commandline.groups import Group
from dorad.commandline.tables import print_object, print_table
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dorad.dataflow.model import Dataflow
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

Your own types are the files in `types/` beside PATH, or in the current directory without PATH. The
messages of ROS 2 are those of the installation that PATH names with `setup`, else of the one that
is sourced, else of the one in /opt/ros.
"""


@types.command("list", epilog=LIST_EPILOG)
@path_argument
@json_option
def list_types(path: Path | None, *, as_json: bool) -> None:
    """List the standard types, your own, and the messages of ROS 2 if it is installed."""
    library = with_messages(load_library(path), path)
    if as_json:
        print_object([as_plain(kind) for kind in library])
    else:
        print_table(COLUMNS, (_as_row(kind) for kind in library))


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
        CompletionItem(kind.urn, help=kind.description)
        for kind in library
        if kind.urn.startswith(incomplete)
    ]


SHOW_EPILOG = """\b
Examples:
  dora types show std/media/v1/Image
  dora types show Image
  dora types show ros2/sensor_msgs/PointCloud2
  dora types show acme/arm/v1/Joint robot/dataflow.yml --json
"""


@types.command("show", epilog=SHOW_EPILOG)
@click.argument("urn", shell_complete=_complete_urn)
@path_argument
@json_option
def show_type(urn: str, path: Path | None, *, as_json: bool) -> None:
    """Show the definition of the type URN. Its last word is enough if it is unique."""
    kind = find(load_library(path), urn, path)
    if as_json:
        print_object(as_plain(kind))
        return
    for line in detail_lines(kind):
        click.echo(visible(line))


def detail_lines(shown: TypeDef) -> Iterator[str]:
    """Yield the lines of `dora types show`."""
    yield shown.urn
    if shown.description:
        yield f"  {shown.description}"
    yield f"  arrow: {shown.shape}"
    if shown.fields:
        width = max(len(field.name) for field in shown.fields)
        yield "  fields:"
        for field in shown.fields:
            note = "" if field.nullable else "  (never null)"
            note += f"  {field.description}" if field.description else ""
            yield f"    {field.name:{width}}  {field.shape}{note}"
    for param in shown.params:
        default = f" = {param.default}" if param.default is not None else ""
        about = f": {param.description}" if param.description else ""
        yield f"  parameter {param.name}{default}{about}"
    for key in shown.metadata:
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
    exists: its own, and the messages of ROS 2 that its ports name or its bridges carry.
    """
    from dorad.dataflow.types.generate.module import module_text

    text = module_text(load_library(path, bridged=True).own)
    if output is None:
        click.echo(text, nl=False)
        return
    write_text(output, text)
    click.echo(f"wrote {output}")


def load_library(path: Path | None, *, bridged: bool = False) -> Library:
    """Return the types of a dataflow, by default of the one in the current directory.

    With `bridged`, the messages that its bridges to ROS 2 carry are among them.

    Raises:
        DataflowError: the file, or a file of types, is invalid.
        click.ClickException: a message of ROS 2 is not installed.
    """
    from dorad.dataflow.types.library import Library
    from dorad.dataflow.types.user import read_user_types

    dataflow = _dataflow(path)
    if dataflow is None:
        return Library(read_user_types(Path()))
    own = {kind.urn: kind for kind in read_user_types(dataflow.path.parent)}
    own |= {kind.urn: kind for kind in dataflow.own_types}
    if bridged and any(node.ros2 is not None for node in dataflow.nodes):
        from dorad.dataflow.types.ros2 import (
            bridged_messages,
            installations,
            messages_of,
            why_missing,
        )

        own = messages_of(dataflow, os.environ) | own
        for urn in bridged_messages(dataflow):
            if urn not in own:
                places = installations(dataflow, os.environ)
                raise click.ClickException(why_missing(urn, places))
    return Library(own[urn] for urn in sorted(own))


def _dataflow(path: Path | None) -> Dataflow | None:
    path = path or next((Path(name) for name in DEFAULTS if Path(name).is_file()), None)
    return None if path is None else load_dataflow(path)


def with_messages(library: Library, path: Path | None) -> Library:
    """Return the types with the messages of ROS 2, of the installations that a dataflow names.

    Without an installation there are none; a warning tells what is wrong with one.
    """
    from dorad.commandline.reports import print_warning
    from dorad.dataflow.types.library import Library
    from dorad.dataflow.types.ros2 import all_messages, installations
    from dorad.ros2.environment import NotInstalledError, SetupError

    own: dict[str, TypeDef] = {}
    problems: list[str] = []
    for place in installations(_dataflow(path), os.environ):
        if not isinstance(place, SetupError):
            own |= {kind.urn: kind for kind in all_messages(place, problems)}
        elif not isinstance(place, NotInstalledError):
            problems.append(str(place))
    for problem in problems:
        print_warning(problem)
    own |= {kind.urn: kind for kind in library.own}
    return Library(own[urn] for urn in sorted(own))


def find(library: Library, text: str, path: Path | None) -> TypeDef:
    """Return the type with this URN or short name. Raises click.ClickException if there is none.

    Messages of ROS 2 are looked at if no other type has the name.
    """
    from dorad.dataflow.errors import TextError
    from dorad.dataflow.types.ports import ROS2
    from dorad.dataflow.types.urn import parse_urn

    try:
        base = parse_urn(text).base
    except TextError as error:
        raise click.ClickException(f"{error.message}; {error.hint}") from error
    if library.get(base) is None and not library.short(base):
        library = with_messages(library, path)
    short = library.short(base)
    kind = library.get(short[0] if len(short) == 1 else base)
    if kind is None and short:
        raise click.ClickException(f"there are several types `{base}`: {', '.join(short)}")
    if kind is None and base.startswith(ROS2):
        from dorad.dataflow.types.ros2 import installations, why_missing

        raise click.ClickException(why_missing(base, installations(_dataflow(path), os.environ)))
    if kind is None:
        hint = library.hint(base)
        raise click.ClickException(f"there is no type `{base}`{f' ({hint})' if hint else ''}")
    return kind


def as_plain(kind: TypeDef) -> dict[str, Any]:
    """Return the JSON form of a type: its URN and its definition."""
    from dorad.dataflow.types.definitions import plain_definition

    return {"urn": kind.urn, **plain_definition(kind)}


def _as_row(kind: TypeDef) -> tuple[str, ...]:
    from dorad.dataflow.types.model import ListOf

    parts = ", ".join(field.name for field in kind.fields)
    if isinstance(kind.shape, ListOf):
        parts = str(kind.shape.item)
    return kind.urn, kind.arrow, parts, kind.description or ""
