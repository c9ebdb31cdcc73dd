"""Check that a dataflow can run from the files of its release alone."""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dorad.dataflow.errors import DataflowError
from dorad.dataflow.gitsources import base_of, folder_of
from dorad.dataflow.load import load
from dorad.dataflow.model import ARCH, Dataflow, NodeKind, NodeSpec
from dorafleet.release.errors import BuildError
from dorafleet.release.nodes import for_architecture, program_of

if TYPE_CHECKING:
    from dorad.release.manifest import Target

YAML = (".yml", ".yaml")
_ELF = struct.Struct("<4s14xH")
_MACHINES = {3: "i686", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64"}


class Unexpanded(Mapping[str, str]):
    """Variables that stay as they are written: each robot has its own values."""

    def __init__(self) -> None:
        self.used: set[str] = set()
        """Names of those without a default."""

    def __getitem__(self, name: str) -> str:
        self.used.add(name)
        return f"${name}"

    def __contains__(self, name: object) -> bool:
        return False

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def check_programs(dataflow: Dataflow, root: Path, files: Mapping[str, Path]) -> list[str]:
    """Return remarks about nodes that need more than the release.

    Raises:
        BuildError: the program of a node is not in the release.
    """
    problems: list[str] = []
    notes: list[str] = []
    for node in dataflow.nodes:
        for kind, text in _about(node, dataflow, root, files):
            (problems if kind == "problem" else notes).append(f"node {node.id}: {text}")
    if len(problems) == 1:
        raise BuildError(problems[0])
    if problems:
        raise BuildError("programs are missing", None, problems)
    return notes


def check_complete(dataflow: Dataflow, root: Path, files: Mapping[str, Path]) -> None:
    """Read the dataflow again from only the files of the release.

    Raises:
        BuildError: something that it reads is not among them.
    """
    with tempfile.TemporaryDirectory(prefix="dorafleet-release-") as folder:
        for name, source in files.items():
            if source.suffix in YAML:
                target = Path(folder, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
        entry = Path(folder, (dataflow.base_dir / dataflow.path.name).relative_to(root))
        try:
            again = load(entry, environ=Unexpanded())
        except DataflowError as error:
            lines = [line.replace(f"{folder}/", "") for line in error.lines]
            message = "the dataflow is not complete without files that are ignored or outside"
            raise BuildError(message, None, [message, *lines]) from error
    if again.descriptor != dataflow.descriptor:
        raise BuildError(
            "the dataflow reads other files than those of its release", "see .releaseignore"
        )


def architectures(files: Mapping[str, Path]) -> dict[str, str]:
    """Return the architectures of compiled programs, each with the first file that has it."""
    machines: dict[str, str] = {}
    for name, path in files.items():
        with path.open("rb") as file:
            head = file.read(_ELF.size)
        if len(head) == _ELF.size:
            magic, machine = _ELF.unpack(head)
            if magic == b"\x7fELF" and machine in _MACHINES:
                machines.setdefault(_MACHINES[machine], name)
    return machines


def check_architectures(
    dataflow: Dataflow, root: Path, files: Mapping[str, Path], targets: Sequence[Target]
) -> None:
    """Check that each node has a program for each target.

    Raises:
        BuildError: a program is missing, or compiled for another machine.
    """
    problems = [
        f"node {node.id}: {text}"
        for node in dataflow.nodes
        for program in program_of(node)
        for arch in dict.fromkeys(target.arch for target in targets)
        if (text := _wrong_program(program, arch, folder_of(node, dataflow), root, files))
    ]
    hint = f"build one for each, in folders such as build-aarch64, and write `build-${ARCH}/...`"
    if len(problems) == 1:
        raise BuildError(problems[0], hint)
    if problems:
        raise BuildError("programs do not fit the targets", hint, problems)


def _wrong_program(
    program: str, arch: str, folder: Path, root: Path, files: Mapping[str, Path]
) -> str | None:
    """Return why a node's program does not run on an architecture, as far as the release has it."""
    if not folder.is_relative_to(root):
        return None  # its files are those of the robot
    text = for_architecture(program, arch)
    source = files.get(_name(folder / text, root))
    if source is None:
        missing = text != program and not text.startswith(("/", "~")) and "$" not in text
        return f"there is no {text} for the target {arch}" if missing else None
    compiled = architectures({text: source})
    if compiled and arch not in compiled:
        return f"{text} is compiled for {next(iter(compiled))}, not for the target {arch}"
    return None


def _about(
    node: NodeSpec, dataflow: Dataflow, root: Path, files: Mapping[str, Path]
) -> Iterator[tuple[str, str]]:
    if node.kind is NodeKind.URL:
        yield "note", f"each robot downloads {node.path}"
    if node.kind is NodeKind.DYNAMIC:
        yield "note", "its process is not started by the release"
    if node.build or any(operator.build for operator in node.operators):
        yield "note", "`build` is not run on robots; its results must be in the release"
    if node.own_env.get("VIRTUAL_ENV"):
        yield "note", "its own VIRTUAL_ENV is used, not the environment of the release"
    folder = folder_of(node, dataflow)
    if node.git is not None and folder == base_of(node, dataflow):
        yield "problem", "its `git` source was not fetched; run `dora build` first"
        return
    if node.deploy is not None and not folder.is_relative_to(root):
        yield "note", f"its `working_dir` {node.deploy.working_dir} must exist on each robot"
        return
    for text in program_of(node):
        if for_architecture(text, "") != text:
            continue  # `check_architectures` looks at each
        if "$" in text or text.startswith(("/", "~")):
            yield "note", f"{text} must exist on each robot"
            continue
        path = Path(folder, text)
        if "/" not in text and path.suffix != ".py" and not path.exists():
            yield "note", f"the command `{text}` must exist on each robot, or in a locked package"
        elif not path.is_file():
            yield "problem", f"there is no file {text}"
        elif _name(path, root) not in files:
            where = (
                "is ignored" if path.resolve().is_relative_to(root) else "is outside the release"
            )
            yield "problem", f"{text} {where}; see --root and .releaseignore"


def _name(path: Path, root: Path) -> str:
    """Return the path of a file in the release, with `..` resolved but not links."""
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    plain = Path(*parts)
    return plain.relative_to(root).as_posix() if plain.is_relative_to(root) else ""
