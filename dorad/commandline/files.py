"""The dataflow file of a command line: find, download, complete, load and check it."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from dorad.dataflow.model import Dataflow

SUFFIXES = (".yml", ".yaml")
DEFAULTS = ("dataflow.yml", "dataflow.yaml")
FETCH_TIMEOUT_S = 30.0
MAX_FETCH_BYTES = 16 << 20

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

if TYPE_CHECKING:
    PathType = click.ParamType[Path]
else:  # generic only in click's newer releases
    PathType = click.ParamType


class DataflowFile(PathType):
    """A path to a dataflow file, or an http(s) URL to download into the current directory."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path of an existing file. Raises click.ClickException if it does not exist."""
        text = os.fspath(value)
        if text.startswith(("http://", "https://")):
            return fetch(text, Path.cwd())
        if not text:
            raise click.ClickException("the path of the dataflow file is empty")
        path = Path(text)
        try:
            is_folder = path.is_dir()
        except OSError as error:  # the name is too long, or a link leads to itself
            raise click.ClickException(f"{text[:100]}: {error.strerror}") from error
        if is_folder:
            raise click.ClickException(
                f"{text} is a directory: name a dataflow file in it{_candidates(path)}"
            )
        if not path.exists():
            here = "" if path.is_absolute() else f" in {Path.cwd()}"
            raise click.ClickException(f"{text}: no such file{_candidates(path.parent) or here}")
        if path.suffix == ".py":
            raise click.ClickException(_for_program(path))
        return path

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete directories and *.yml / *.yaml files."""
        return path_items(incomplete, SUFFIXES)


def _for_program(path: Path) -> str:
    """Return the message for a Python program that is given as a dataflow."""
    node = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-") or "node"
    name = path.name if re.fullmatch(r"[\w.-]+", path.name) else json.dumps(path.name)
    return (
        f"{path} is a Python program, not a dataflow. A dataflow that runs it:\n"
        f"  nodes:\n    - id: {node}\n      path: {name}\n"
        f"Save it as dataflow.yml in the folder of {path.name}, and name that file."
    )


def path_items(incomplete: str, suffixes: tuple[str, ...] | None = None) -> list[CompletionItem]:
    """Return the completions of a path, marked as such: a shell quotes blanks in them."""
    return [CompletionItem(text, path=True) for text in complete_path(incomplete, suffixes)]


def complete_path(incomplete: str, suffixes: tuple[str, ...] | None) -> list[str]:
    """Return the completions of a path: directories (with a slash), and files by suffix.

    None stands for any suffix.
    """
    head, slash, tail = incomplete.rpartition("/")
    directory = Path(f"{head}{slash}" or ".").expanduser()
    try:
        entries = sorted(directory.iterdir())
    except OSError:
        return []
    paths = []
    for entry in entries:
        hidden = entry.name.startswith(".") and not tail.startswith(".")
        if hidden or not entry.name.startswith(tail):
            continue
        if entry.is_dir():
            paths.append(f"{head}{slash}{entry.name}/")
        elif suffixes is None or entry.suffix in suffixes:
            paths.append(f"{head}{slash}{entry.name}")
    return paths


def _candidates(directory: Path) -> str:
    names = [Path(text).name for text in complete_path(f"{directory}/", SUFFIXES)]
    files = [name for name in names if name.endswith(SUFFIXES)]
    return f" (there: {', '.join(files[:5])})" if files else ""


def fetch(url: str, directory: Path) -> Path:
    """Download a dataflow file into `directory` and return its path.

    Raises click.ClickException if the download fails, or if another file of that name exists.
    """
    import tempfile
    import urllib.parse

    from dorad.launch.transfer import transfer

    name = Path(urllib.parse.urlsplit(url).path).name
    if not name.endswith(SUFFIXES):
        raise click.ClickException(f"{url}: the address of a dataflow must end in .yml or .yaml")
    with tempfile.TemporaryFile() as file:
        problem = transfer(url, file.fileno(), MAX_FETCH_BYTES, FETCH_TIMEOUT_S)
        if problem:
            raise click.ClickException(problem)
        file.seek(0)
        content = file.read()
    target = directory / name
    if target.exists() and not _has_content(target, content):
        raise click.ClickException(f"{target} exists and differs from {url}; move it away first")
    target.write_bytes(content)
    return target


def _has_content(path: Path, content: bytes) -> bool:
    from dorad.boundedfile import read_bounded

    try:
        return read_bounded(path, MAX_FETCH_BYTES) == content
    except OSError:
        return False


def dataflow_argument(*, required: bool = True) -> Callable[[Decorated], Decorated]:
    """Add the argument PATH. If not required, it defaults to None; see `default_dataflow`."""
    return click.argument("path", type=DataflowFile(), required=required)


def default_dataflow() -> Path:
    """Return the dataflow file of the current directory. Raises click.UsageError without one."""
    for name in DEFAULTS:
        if Path(name).is_file():
            return Path(name)
    raise click.UsageError(f"name a dataflow file: there is no {DEFAULTS[0]} here")


def load_dataflow(path: Path) -> "Dataflow":
    """Load a dataflow file. Raises DataflowError with all its problems."""
    from dorad.dataflow.load import load

    return load(path)


def refuse_unsupported(dataflow: "Dataflow", *, strict: bool = False, placed: bool = False) -> None:
    """Raise DataflowError if the dataflow cannot be run as it is written.

    It may use unsupported features, or types that do not match although it has `strict_types`. With
    `strict`, ignored keys are errors, too. `placed` allows `deploy`: a coordinator will follow it.
    """
    from dorad.dataflow.errors import DataflowError
    from dorad.dataflow.problems import in_order
    from dorad.dataflow.support import unsupported
    from dorad.dataflow.types.strict import type_problems

    ignored = dataflow.ignored if strict else ()
    problems = (*unsupported(dataflow, placed=placed), *type_problems(dataflow), *ignored)
    if problems:
        raise DataflowError(in_order(problems))


def print_warnings(dataflow: "Dataflow") -> None:
    """Print the warnings about a dataflow to standard error."""
    from dorad.commandline.reports import print_warning
    from dorad.dataflow.types.strict import all_warnings

    for warning in all_warnings(dataflow):
        print_warning(str(warning))


def has_builds(dataflow: "Dataflow") -> bool:
    """Return True if there are build commands, or sources to fetch."""
    return any(
        node.build or node.git or any(o.build for o in node.operators) for node in dataflow.nodes
    )


def note_unbuilt(dataflow: "Dataflow") -> None:
    """Print that a coordinator runs no build commands, if there are any."""
    from dorad.commandline.reports import print_note

    if has_builds(dataflow):
        print_note("build commands are not run: the robots need the programs already")


def write_text(path: Path, text: str) -> None:
    """Write a command's output file. Raises click.ClickException if that fails."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from error
