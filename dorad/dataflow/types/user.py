"""Read the user's own types: files in `types/` beside the dataflow, or `types:` in it.

The path of a file in `types/` is the prefix of its types: `types/acme/arm/v1.yml` defines
`acme/arm/v1/Joint`. The types, and the messages of ROS 2 that ports name, become `types:` of the
dataflow's descriptor, and so reach the daemon, its state and the output of `dora expand`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from msgspec.structs import replace

from dorad.dataflow.document import read_document
from dorad.dataflow.errors import DataflowError
from dorad.dataflow.fields import Fields
from dorad.dataflow.problems import Problems, in_order
from dorad.dataflow.text import read_text
from dorad.dataflow.types.definitions import Draft, drafts, plain_definition, read_drafts
from dorad.dataflow.types.ports import ROS2, named_types

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dorad.dataflow.model import Dataflow
    from dorad.dataflow.types.model import TypeDef

_log = logging.getLogger(__name__)

FOLDER = "types"
MAX_FILE_SIZE = 1 << 20
"""Bytes."""
MAX_FILES = 1000


def with_user_types(dataflow: Dataflow, environ: Mapping[str, str]) -> Dataflow:
    """Return the dataflow with the types of the files beside it and the messages of ROS 2.

    Definitions in the dataflow's own `types:` override them. `environ` are the variables that name
    the installation of ROS 2. Raises DataflowError with every problem in the files.
    """
    own = {definition.urn: definition for definition in dataflow.own_types}
    definition = read_user_types(dataflow.path.parent)
    merged = {**{each.urn: each for each in definition}, **own}
    if any(urn.startswith(ROS2) for urn in named_types(dataflow)):
        from dorad.dataflow.types.ros2 import messages_of  # few dataflows name any

        merged = {**messages_of(dataflow, environ), **merged}
    if merged == own:
        return dataflow
    types = tuple(merged[urn] for urn in sorted(merged))
    definitions = {each.urn: plain_definition(each) for each in types}
    return replace(
        dataflow, own_types=types, descriptor={**dataflow.descriptor, FOLDER: definitions}
    )


def read_user_types(folder: Path) -> tuple[TypeDef, ...]:
    """Return the types in the files in `types/` of a folder; none if there is no such folder.

    Raises DataflowError with every problem in the files.
    """
    root = folder / FOLDER
    if not root.is_dir():
        return ()
    read: list[Draft] = []
    problems: list[Problems] = []
    for path in _files(root):
        wrong = Problems(str(path))
        problems.append(wrong)
        inside = path.relative_to(root)
        prefix = f"{inside.parent.as_posix()}/{path.stem}/".removeprefix("./")
        read += _read_file(path, prefix, wrong, read)
    types = read_drafts(read)
    errors = [error for each in problems for error in in_order(each.errors)]
    _log.debug("%s: %d types in %d files", root, len(types), len(problems))
    if errors:
        raise DataflowError(errors)
    return types


def _files(root: Path) -> Iterator[Path]:
    paths = sorted(root.rglob("*.yml"))
    if len(paths) > MAX_FILES:
        problems = Problems(str(root))
        problems.at(0, 0, f"has {len(paths)} files of types, more than {MAX_FILES}")
        raise DataflowError(problems.errors)
    yield from paths


def _read_file(path: Path, prefix: str, problems: Problems, known: list[Draft]) -> list[Draft]:
    text = read_text(path, problems, "a file of types", largest=MAX_FILE_SIZE)
    if text is None:
        return []
    if prefix.startswith("std/"):
        problems.at(1, 1, "`std/` is for the standard library", "put it into another folder")
        return []
    root = read_document(text, problems)
    if root is None:
        return []
    body = Fields(root, problems, "a mapping with `types`")
    read = list(drafts(body.entries(FOLDER), prefix, problems, known))
    if "types" not in body.finish() and not body.has(FOLDER) and isinstance(root.data, dict):
        problems.error_in_name(root, "needs `types`", "a mapping of names to definitions")
    return read


def read_inline(fields: Fields) -> tuple[TypeDef, ...]:
    """Return the types that a dataflow file itself defines, sorted by URN."""
    read = list(drafts(fields.entries(FOLDER), "", fields.problems))
    return tuple(sorted(read_drafts(read), key=lambda each: each.urn))
