"""Collect the files of a release: everything below its folder that is not ignored.

Ignored are hidden names, byte code, virtual environments, `node_modules`, the folders `out`,
`build` and `recordings` that dora writes beside the dataflow, clones of `git` sources that are no
longer used, and what `.releaseignore` lists (in
the format of .gitignore). .gitignore is not read, because compiled programs and models are in it.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pathspec import GitIgnoreSpec

from dorad.boundedfile import read_bounded
from dorad.dataflow.gitsources import FOLDER, full_commit, used_clones
from dorad.dataflow.settings import RECORD_FOLDER
from dorad.release.manifest import path_problem
from dorafleet.release.errors import BuildError

IGNORE_FILE = ".releaseignore"
MAX_IGNORE = 1 << 20
"""Bytes of the file with the rules of what is left out."""
MAX_FILES = 30_000
"""More do not fit into a manifest."""
MAX_PROBLEMS = 20
WRITTEN_BY_DORA = ("out", "build", RECORD_FOLDER)
_NAMES = ("__pycache__", "node_modules")
_BYTE_CODE = (".pyc", ".pyo")


@dataclass
class Collected:
    """The files of a release by their path in it, and what was left out."""

    files: dict[str, Path] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    """Files and folders that `.releaseignore` lists."""


def collect(root: Path, dataflow: Path) -> Collected:
    """Return the files below `root` that belong to the release of the dataflow in a file there.

    Raises:
        BuildError: a link leads out of `root`, a name or a kind of file cannot be in a release.
        GitSourceError: the note of what `dora build` fetched cannot be read.
        OSError: a folder cannot be read.
    """
    clones = used_clones(dataflow.parent)
    walk = _Walk(root, dataflow.parent, _ignore_rules(root), clones)
    collected = Collected()
    problems: list[str] = []
    for path in walk.files(root, collected.ignored):
        name = path.relative_to(root).as_posix()
        if problem := path_problem(name) or _file_problem(path, root):
            problems.append(f"{name!r} {problem}")
        collected.files[name] = path
        if len(collected.files) > MAX_FILES or len(problems) > MAX_PROBLEMS:
            break
    if problems:
        hint = f"change it, or list it in {root / IGNORE_FILE}"
        if len(problems) == 1:
            raise BuildError(problems[0], hint)
        raise BuildError("some files cannot be in a release", hint, [*problems, hint])
    if len(collected.files) > MAX_FILES:
        raise BuildError(
            f"{root} has more than {MAX_FILES} files", f"list some in {root / IGNORE_FILE}"
        )
    collected.files = dict(sorted(collected.files.items()))
    return collected


@dataclass
class _Walk:
    root: Path
    base: Path
    """The folder of the dataflow."""
    rules: GitIgnoreSpec
    clones: set[Path]
    """The folders of the commits that nodes with `git` use; older ones are left out."""

    def files(self, folder: Path, ignored: list[str]) -> Iterator[Path]:
        """Yield all files, and add to `ignored` those that the rules exclude."""
        for entry in sorted(os.scandir(folder), key=lambda each: each.name):
            path = Path(entry.path)
            is_folder = entry.is_dir(follow_symlinks=False)
            if self._is_left_out(path, is_folder=is_folder):
                continue
            name = path.relative_to(self.root).as_posix() + ("/" if is_folder else "")
            if self.rules.match_file(name):
                ignored.append(name)
            elif is_folder:
                yield from self.files(path, ignored)
            else:
                yield path

    def _is_left_out(self, path: Path, *, is_folder: bool) -> bool:
        if path.name.startswith(".") or path.name in _NAMES or path.suffix in _BYTE_CODE:
            return True
        if not is_folder:
            return False
        if path.parent == self.base and path.name in WRITTEN_BY_DORA:
            return True
        if full_commit(path.name) and path.is_relative_to(self.base / FOLDER):
            return path not in self.clones
        return (path / "pyvenv.cfg").is_file()


def _ignore_rules(root: Path) -> GitIgnoreSpec:
    path = root / IGNORE_FILE
    try:
        lines = read_bounded(path, MAX_IGNORE).decode().splitlines()
    except FileNotFoundError:
        lines = []
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BuildError(f"{path} is not text in UTF-8: {error}") from error
    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise BuildError(f"{path} has a line that cannot be read: {error}") from error


def _file_problem(path: Path, root: Path) -> str:
    """Return why a file cannot be in a release, empty if it can."""
    try:
        path.name.encode()
        status = path.stat()
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    except (FileNotFoundError, OSError):
        return "is a link that leads nowhere"
    if path.is_symlink():
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(os.path.realpath(root)):
            return f"is a link that leads out of the release, to {target}"
        if stat.S_ISDIR(status.st_mode):
            return "is a link to a folder"
    if not stat.S_ISREG(status.st_mode):
        return "is neither a file nor a folder"
    if not os.access(path, os.R_OK):
        return "may not be read by you"
    return ""
