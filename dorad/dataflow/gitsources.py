"""The repositories that nodes with `git` come from: which commit is meant, and where it lies.

`dora build` fetches a commit into the folder `git/HOST/PATH/COMMIT` beside the dataflow's file. It
notes in `git/sources.json` which commit each branch, tag or revision meant. A start, a release and
a robot find the folder by this note, without git and without a network.

The lock file `NAME.dora-lock.yaml` has dora 1.1.0's format (version 2), so both read it.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from dorad.boundedfile import read_bounded
from dorad.problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.dataflow.model import Dataflow, NodeSpec
    from dorad.dataflow.settings import Git

FOLDER = "git"
"""The folder of all clones, in the folder that a node has without `git`."""
SOURCES = "sources.json"
MAX_FILE = 1 << 20
"""Bytes of the note or of a lock file."""
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_FORMAT = 1
_LOCK_VERSIONS = range(2, 4)
"""Version 1 has no fingerprint, so it cannot tell whether it belongs to the file."""


class GitSourceError(ProblemError):
    """A source that cannot be fetched, or a note or lock file that cannot be used."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__("refused", message, hint)


class Reference(NamedTuple):
    """What a node wants of a repository."""

    repo: str
    kind: str
    """`head`, `branch`, `tag` or `rev`."""
    value: str
    """Empty for `head`."""

    @classmethod
    def of(cls, git: Git) -> Reference:
        """Return what the keys of a node mean."""
        for kind, value in (("branch", git.branch), ("tag", git.tag), ("rev", git.rev)):
            if value is not None:
                return cls(git.url, kind, value)
        return cls(git.url, "head", "")

    def __str__(self) -> str:
        what = f"{self.kind} {self.value}" if self.value else "its default branch"
        return f"{without_secret(self.repo)} ({what})"


def references(dataflow: Dataflow) -> dict[str, Reference]:
    """Return what each node with `git` wants, by its id."""
    return {node.id: Reference.of(node.git) for node in dataflow.nodes if node.git is not None}


def without_secret(url: str) -> str:
    """Return a URL without the password or token in it, for lines that people see."""
    return re.sub(r"(?<=://)[^/@]*:[^/@]*@|(?<=://)[^/@:]{20,}@", "…@", url)


def clone_folder(base: Path, repo: str, commit: str) -> Path:
    """Return the folder of a commit; `base` is the folder that the node has without `git`.

    No part of a URL leads out of it, or is a hidden name.
    """
    match = re.match(r"[a-z0-9+]+://(?:[^/@]*@)?([^/]*)(/.*)|(?:[^/@]*@)?([^/:]+):(.*)", repo)
    host, path = (match[1] or match[3], match[2] or match[4]) if match else ("", repo)
    parts = [host or "localhost", *PurePosixPath(path).parts]
    names = [re.sub(r"[^A-Za-z0-9._-]+", "_", part).lstrip(".") for part in parts if part != "/"]
    return base.joinpath(FOLDER, *(name for name in names if name), commit)


def base_of(node: NodeSpec, dataflow: Dataflow) -> Path:
    """Return a node's `deploy.working_dir`, or the folder of the dataflow's file.

    A node without `deploy` has that of the dataflow. A relative `working_dir` is relative to the
    folder of the file.
    """
    deploy = node.deploy or dataflow.deploy
    if deploy is None or deploy.working_dir is None:
        return dataflow.base_dir
    return dataflow.base_dir / Path(deploy.working_dir).expanduser()


def folder_of(node: NodeSpec, dataflow: Dataflow) -> Path:
    """Return the folder of a node: what was fetched for its `git`, else `base_of`.

    Raises:
        GitSourceError: the note about what was fetched cannot be read.
    """
    base = base_of(node, dataflow)
    if node.git is None:
        return base
    reference = Reference.of(node.git)
    commit = read_sources(base).get(reference)
    if commit is None:
        return base
    folder = clone_folder(base, reference.repo, commit)
    return folder if folder.is_dir() else base


def read_sources(base: Path) -> dict[Reference, str]:
    """Return the commit that was fetched for each reference; empty if nothing was fetched.

    Raises:
        GitSourceError: the note cannot be read.
    """
    import json  # most dataflows have no such node

    path = base / FOLDER / SOURCES
    try:
        note = json.loads(read_bounded(path, MAX_FILE))
        if note["format"] != _FORMAT:
            raise GitSourceError(f"{path} has a format of another version", "run `dora build`")
        return {
            Reference(str(each["repo"]), str(each["kind"]), str(each["value"])): _commit(
                each["commit"]
            )
            for each in note["sources"]
        }
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise GitSourceError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise GitSourceError(
            f"{path} is damaged: {error}", "remove it and run `dora build` again"
        ) from error


def note_sources(base: Path, fetched: Mapping[Reference, str]) -> None:
    """Add to the note which commits were fetched. Raises OSError and GitSourceError."""
    import json

    from dorad.atomicfile import atomic_file

    sources = [
        {**reference._asdict(), "commit": commit}
        for reference, commit in sorted({**read_sources(base), **fetched}.items())
    ]
    text = json.dumps({"format": _FORMAT, "sources": sources}, indent=1)
    # A daemon that runs as another user reads it.
    with atomic_file(base / FOLDER / SOURCES, mode=0o644) as file:
        file.write(text.encode() + b"\n")


def used_clones(base: Path) -> set[Path]:
    """Return the folders of all commits in the note. Raises GitSourceError."""
    return {
        clone_folder(base, reference.repo, commit)
        for reference, commit in read_sources(base).items()
    }


def lock_path(dataflow: Dataflow, other: Path | None = None) -> Path:
    """Return the lock file of a dataflow: `other`, or the one beside its file."""
    return other or dataflow.base_dir / f"{dataflow.path.stem}.dora-lock.yaml"


def read_lock(path: Path, dataflow: Dataflow) -> dict[Reference, str]:
    """Return the commits in a lock file for what the nodes of a dataflow want.

    Raises:
        GitSourceError: it cannot be read, or does not belong to these sources.
    """
    import yaml

    hint = "write it again: dora build --write-lockfile"
    try:
        lock = yaml.load(read_bounded(path, MAX_FILE), yaml.CSafeLoader)
        if lock["version"] not in _LOCK_VERSIONS:
            raise GitSourceError(f"{path}: version {lock['version']} is not supported", hint)
        if lock["descriptor_fingerprint"] != fingerprint(dataflow):
            raise GitSourceError(f"{path} is for other `git` sources than those of the file", hint)
        locked = {
            wanted: _locked_commit(lock["git_sources"][node], wanted)
            for node, wanted in references(dataflow).items()
        }
    except FileNotFoundError as error:
        raise GitSourceError(
            f"there is no lock file {path}", "make it: dora build --write-lockfile"
        ) from error
    except OSError as error:
        raise GitSourceError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise GitSourceError(f"{path} is not a lock file: {_one_line(error)}", hint) from error
    return locked


def write_lock(path: Path, dataflow: Dataflow, commits: Mapping[Reference, str]) -> None:
    """Write the lock file of a dataflow. Raises GitSourceError."""
    import yaml

    from dorad.atomicfile import atomic_file

    lock: dict[str, Any] = {
        "version": _LOCK_VERSIONS[0],
        "descriptor_fingerprint": fingerprint(dataflow),
        "git_sources": {
            node: {"repo": wanted.repo, "commit_hash": commits[wanted]}
            for node, wanted in sorted(references(dataflow).items())
        },
    }
    try:
        with atomic_file(path, mode=0o644) as file:
            file.write(yaml.safe_dump(lock, sort_keys=False).encode())
    except OSError as error:
        text = f"cannot write the lock file {path}: {error.strerror}"
        raise GitSourceError(text) from error


def fingerprint(dataflow: Dataflow) -> str:
    """Return what a lock file says of the sources it belongs to, as dora 1.1.0 computes it.

    It is FNV-1a with 64 bits over a line for each node, repository and reference.
    """
    lines = ["dora-lockfile-v2"]
    for node, wanted in sorted(references(dataflow).items()):
        lines += [node, wanted.repo, f"{wanted.kind}:{wanted.value}"]
    digest = 0xCBF29CE484222325
    for byte in "".join(f"{line}\n" for line in lines).encode():
        digest = (digest ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{digest:016x}"


def full_commit(text: str) -> bool:
    """Return True if a text is a whole commit id, which nothing can change."""
    return _COMMIT.fullmatch(text) is not None


def _commit(text: object) -> str:
    if not isinstance(text, str) or not full_commit(text):
        raise ValueError(f"{text!r} is not a commit")
    return text


def _locked_commit(entry: Any, wanted: Reference) -> str:
    if entry["repo"] != wanted.repo:
        raise ValueError(f"it has {entry['repo']} instead of {wanted.repo}")
    return _commit(entry["commit_hash"])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
