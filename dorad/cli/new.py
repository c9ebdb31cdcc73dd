"""`dora new`: create a dataflow or a node that runs and whose tests pass."""

import re
import sys
from importlib import resources
from pathlib import Path
from string import Template

import click

EPILOG = """\b
Examples:
  dora new hello                       a dataflow: two talkers and a listener
  dora new my-filter --kind node       one node, to be used in dataflows
  dora new driver --lang cpp           a dataflow of two nodes in C++, built by CMake
"""

LANGUAGES = {"python": "Python", "c": "C", "cpp": "C++"}
TAKEN = {"dora", "dorad", "numpy", "pyarrow", "pytest", "tests"}
"""Modules that a node's package must not hide, besides the standard library."""


def _language(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if value not in LANGUAGES:
        known = ", ".join(LANGUAGES)
        raise click.BadParameter(
            f"there is no template for '{value}', only for {known}", ctx, param
        )
    return value


@click.command(epilog=EPILOG)
@click.argument("name", metavar="NAME")
@click.option(
    "--kind", type=click.Choice(["dataflow", "node"]), default="dataflow", help="What to create."
)
@click.option(
    "--lang",
    metavar="LANGUAGE",
    default="python",
    callback=_language,
    help="`python`, `c` or `cpp`; a single node only in `python`.",
)
def new(name: str, *, kind: str, lang: str) -> None:
    """Create the folder NAME with a new dataflow or a new node.

    Both run as they are; in Python, they have tests that need no running dataflow.
    """
    target = Path(name)
    if lang != "python" and kind == "node":
        raise click.UsageError(
            f"there is no template for a single node in {LANGUAGES[lang]}: leave out `--kind node`"
        )
    _check_name(target.name, kind)
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise click.ClickException(f"{target} exists; nothing was changed")
    if target.is_dir() and any(target.iterdir()):
        raise click.ClickException(f"{target} exists and is not empty; nothing was changed")
    if lang != "python":
        files = native_files(target.name, lang)
    else:
        files = dataflow_files(target.name) if kind == "dataflow" else node_files(target.name)
    for relative, text in files.items():
        path = target / relative
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"cannot write {path}: {error.strerror}") from error
    click.echo(f"created the {kind} {target.name} in {target}/\n")
    if lang != "python":
        click.echo(f"  cd {target}\n  dora build dataflow.yml\n  dora run dataflow.yml")
    else:
        click.echo(f"  cd {target}\n  dora run dataflow.yml\n  pytest")


def dataflow_files(name: str) -> dict[str, str]:
    """Return the files of a new dataflow: their texts by relative path."""
    files = {
        "dataflow.yml": _fill("dataflow/dataflow.yml", name),
        "pyproject.toml": _fill("dataflow/pyproject.toml", name),
        "README.md": _fill("dataflow/README.md", name),
        ".gitignore": "__pycache__/\nout/\n.dora/\n.venv/\n",
    }
    for node, template in (
        ("talker-1", "talker"),
        ("talker-2", "talker"),
        ("listener-1", "listener"),
    ):
        files |= {f"{node}/{path}": text for path, text in _package(node, template).items()}
    return files


def native_files(name: str, lang: str) -> dict[str, str]:
    """Return the files of a new dataflow of two nodes in C or C++."""
    more = {
        "language": LANGUAGES[lang],
        "languages": "C" if lang == "c" else "CXX",
        "suffix": lang,
    }
    texts = ("dataflow.yml", "CMakeLists.txt", "README.md")
    files = {each: _fill(f"native/{each}", name, **more) for each in texts}
    for node in ("talker", "listener"):
        files[f"src/{node}.{lang}"] = _fill(f"native/{node}.{lang}", name)
    return {**files, ".gitignore": "build/\nout/\n.dora/\n"}


def node_files(name: str) -> dict[str, str]:
    """Return the files of a new node: their texts by relative path."""
    return {**_package(name, "node"), "dataflow.yml": _fill("node/dataflow.yml", name)}


def _package(name: str, template: str) -> dict[str, str]:
    """Return the files of a node's Python package; `template` holds its code and tests."""
    module = module_name(name)
    return {
        "pyproject.toml": _fill("node/pyproject.toml", name),
        "README.md": _fill("node/README.md", name),
        f"{module}/__init__.py": _fill("node/init.py", name),
        f"{module}/main.py": _fill(f"{template}/main.py", name),
        f"tests/test_{module}.py": _fill(f"{template}/test.py", name),
    }


def module_name(name: str) -> str:
    """Return the name of a node's Python module."""
    return re.sub(r"[-.]", "_", name).lower()


def _fill(template: str, name: str, **more: str) -> str:
    folder = resources.files("dorad.cli").joinpath("templates")
    text = folder.joinpath(*f"{template}.in".split("/")).read_text(encoding="utf-8")
    return Template(text).substitute(name=name, module=module_name(name), **more)


def _check_name(name: str, kind: str) -> None:
    """Raise click.UsageError if a package cannot have this name."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*([-_.][A-Za-z0-9]+)*", name):
        raise click.UsageError(
            f"'{name}' is not a valid name: use letters, digits and single - _ . between them"
        )
    module = module_name(name)
    if kind == "node" and (module in TAKEN or module in sys.stdlib_module_names):
        raise click.UsageError(f"'{name}' would hide the Python module {module}; use another name")
