"""Fetch the repositories that a dataflow's nodes name with `git`.

The `git` program does it, without hooks, templates or questions. A clone appears under its own name
when it is complete, so a killed build leaves nothing that a later one would take for a clone.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dorad.cli.build_plan import BuildError
from dorad.cli.buildprocess import run_command
from dorad.dataflow.gitsources import (
    FOLDER,
    Reference,
    base_of,
    clone_folder,
    full_commit,
    note_sources,
    read_sources,
    without_secret,
)
from dorad.dataflow.nearest import did_you_mean
from dorad.launch.model import Command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dorad.dataflow.model import Dataflow
    from dorad.launch.holder.client import HolderClient

PARTIAL = ".fetch-"
"""How the folder of a clone is called until it is complete; the process's id follows."""
MAX_LINES = 200_000
"""Lines of git's output that are kept; a repository with more branches and tags is refused."""
SOME = 5
"""Branches or tags that are named if none is like the one that is not there."""
_SETTINGS = ("-c", "core.hooksPath=/dev/null", "-c", "init.templateDir=")
_FETCH = ("fetch", "--quiet", "--")
_SHALLOW = ("fetch", "--quiet", "--depth", "1", "--")
_EVERYTHING = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
_OWN_VARIABLES = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_NAMESPACE",
    "GIT_CEILING_DIRECTORIES",
)
"""What git sets in its hooks; with it, a build in a hook would change the repository around it."""


class Fetcher:
    """Fetches what the nodes of one dataflow want."""

    def __init__(
        self,
        dataflow: Dataflow,
        holder: HolderClient,
        echo: Callable[[str], None],
        *,
        locked: Mapping[Reference, str],
        offline: bool = False,
        may_be_old: bool = False,
    ) -> None:
        """Prepare; `locked` has the commits that a lock file says.

        With `offline` only what was fetched before is used. With `may_be_old` that is also used if
        a repository cannot be reached, and `echo` gets a line that says so.
        """
        self._dataflow = dataflow
        self._holder = holder
        self._echo = echo
        self._locked = locked
        self._offline = offline
        self._may_be_old = may_be_old
        self._git = ""

    async def fetch(self) -> dict[Reference, str]:
        """Fetch everything and note it; return the commit of each reference.

        Raises:
            BuildError: a source cannot be fetched, or there is no git.
            GitSourceError: the note of what was fetched cannot be read.
        """
        commits: dict[Reference, str] = {}
        for base, wanted in self._wanted():
            for reference, node in wanted.items():
                known = commits.get(reference) or self._locked.get(reference)
                commit = await self._fetch_one(node, reference, base, known)
                commits[reference] = commit
                try:
                    note_sources(base, {reference: commit})
                except OSError as error:
                    raise _failed(node, reference, f"it cannot be noted: {error}") from error
        return commits

    def _wanted(self) -> Iterator[tuple[Path, dict[Reference, str]]]:
        """Yield what is fetched into each folder, with the first node that wants it."""
        by_base: dict[Path, dict[Reference, str]] = {}
        for node in self._dataflow.nodes:
            if node.git is not None:
                wanted = by_base.setdefault(base_of(node, self._dataflow), {})
                wanted.setdefault(Reference.of(node.git), node.id)
        yield from by_base.items()

    async def _fetch_one(
        self, node: str, reference: Reference, base: Path, commit: str | None
    ) -> str:
        before = read_sources(base).get(reference)
        if before is not None and not clone_folder(base, reference.repo, before).is_dir():
            before = None
        if commit is None and reference.kind == "rev" and full_commit(reference.value):
            commit = reference.value
        if self._offline:
            return self._without_network(node, reference, base, commit or before)
        if commit is None:
            try:
                commit = await self._resolve(node, reference)
            except BuildError as error:
                if before is None or not self._may_be_old:
                    raise
                self._echo(f"{node}: {error}; commit {before[:12]}, fetched earlier, is used")
                return before
        folder = clone_folder(base, reference.repo, commit)
        if full_commit(commit) and folder.is_dir():
            self._echo(f"{node}: {reference} is at {commit[:12]}, which is there")
            return commit
        return await self._clone(node, reference, base, commit)

    @staticmethod
    def _without_network(node: str, reference: Reference, base: Path, commit: str | None) -> str:
        if commit is None or not clone_folder(base, reference.repo, commit).is_dir():
            raise _failed(node, reference, "it was not fetched yet", "build without --offline")
        return commit

    async def _resolve(self, node: str, reference: Reference) -> str:
        """Return the commit that a reference means now; a short `rev` as it is.

        Raises:
            BuildError: the repository cannot be reached, or has no such reference.
        """
        names = {
            "head": "HEAD",
            "branch": f"refs/heads/{reference.value}",
            "tag": f"refs/tags/{reference.value}",
            "rev": reference.value,
        }
        name = names[reference.kind]
        # An annotated tag is an object of its own; `^{}` is the commit that it names.
        listed = await self._listed(node, reference, name, f"{name}^{{}}")
        for each in (f"{name}^{{}}", name):
            if full_commit(listed.get(each, "")):
                return listed[each]
        if reference.kind == "rev" and _is_short_commit(reference.value):
            return reference.value
        group = {"branch": "refs/heads/", "tag": "refs/tags/"}.get(reference.kind, "refs/")
        there = [
            each.removeprefix(group)
            for each in await self._listed(node, reference, f"{group}*")
            if each.startswith(group) and not each.endswith("^{}")
        ]
        text = "the repository is empty" if reference.kind == "head" else "there is none"
        some = f"it has {', '.join(sorted(there)[:SOME])}" if there else None
        raise _failed(node, reference, text, did_you_mean(reference.value, there) or some)

    async def _listed(self, node: str, reference: Reference, *patterns: str) -> dict[str, str]:
        """Return the references of a repository by name. Raises BuildError."""
        lines = await self._run(
            node, reference, self._dataflow.base_dir, "ls-remote", "--", reference.repo, *patterns
        )
        pairs = (line.split("\t") for line in lines)
        return {pair[1]: pair[0] for pair in pairs if len(pair) == 2}

    async def _clone(self, node: str, reference: Reference, base: Path, commit: str) -> str:
        """Fetch a commit into its folder, and return its whole id. Raises BuildError."""
        self._echo(f"{node}: fetching {reference}")
        clones = base / FOLDER
        partial = clones / f"{PARTIAL}{os.getpid()}"
        try:
            clones.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(clones)
            shutil.rmtree(partial, ignore_errors=True)
            await self._run(node, reference, clones, "init", "--quiet", "--", partial.name)
            await self._receive(node, reference, partial, commit)
            lines = await self._run(
                node, reference, partial, "rev-parse", "--verify", f"{commit}^{{commit}}"
            )
            whole = lines[-1]
            await self._run(node, reference, partial, "checkout", "--quiet", "--detach", whole)
            if (partial / ".gitmodules").exists():
                words = ("submodule", "update", "--quiet", "--init", "--recursive", "--depth", "1")
                await self._run(node, reference, partial, *words)
            # A commit that was named in full keeps the name, also if it is that of a tag's object.
            noted = commit if full_commit(commit) else whole
            folder = clone_folder(base, reference.repo, noted)
            folder.parent.mkdir(parents=True, exist_ok=True)
            if not folder.is_dir():
                partial.rename(folder)
        except OSError as error:
            raise _failed(node, reference, f"{error.filename}: {error.strerror}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        self._echo(f"{node}: {reference} is at {noted[:12]}")
        return noted

    async def _receive(self, node: str, reference: Reference, partial: Path, commit: str) -> None:
        """Fetch only a commit; from a server that gives none by its id, and by a short one, all."""
        if full_commit(commit):
            with suppress(BuildError):
                await self._run(node, reference, partial, *_SHALLOW, reference.repo, commit)
                return
        await self._run(node, reference, partial, *_FETCH, reference.repo, *_EVERYTHING)

    async def _run(
        self, node: str, reference: Reference, folder: Path, command: str, *words: str
    ) -> list[str]:
        """Run git in a folder, and return the lines of its output. Raises BuildError."""
        if not self._git:
            self._git = _find_git(node)
        lines: list[str] = []
        env = _environment(os.environ, submodules=command == "submodule")
        end = await run_command(
            self._holder,
            Command((self._git, *_SETTINGS, command, *words), folder, env),
            lambda line: lines.append(line) if len(lines) <= MAX_LINES else None,
        )
        if len(lines) > MAX_LINES:
            raise _failed(node, reference, f"git says more than {MAX_LINES} lines")
        if not end.ok:
            said = " ".join(line.strip() for line in lines[-3:]) or f"git {command} {end}"
            raise _failed(node, reference, without_secret(said))
        return lines


def _failed(node: str, reference: Reference, text: str, hint: str | None = None) -> BuildError:
    return BuildError(f"node '{node}': cannot fetch {reference}: {text}", hint)


def _find_git(node: str) -> str:
    git = shutil.which("git")
    if git is None:
        raise BuildError(
            f"node '{node}' comes from a repository, but there is no `git` command on PATH",
            "install git",
        )
    return git


def _environment(environ: Mapping[str, str], *, submodules: bool) -> dict[str, str]:
    """Return the environment of git: no questions, no programs that a URL or a repository names."""
    env = {name: value for name, value in environ.items() if name not in _OWN_VARIABLES}
    # A repository must not name folders of this machine as its submodules.
    protocols = "http:https:ssh:git" if submodules else "file:http:https:ssh:git"
    return env | {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": protocols,
        "GIT_ADVICE": "0",
        "LC_ALL": "C",
    }


def _is_short_commit(text: str) -> bool:
    return 4 <= len(text) <= 64 and all(letter in "0123456789abcdefABCDEF" for letter in text)


def _remove_abandoned(clones: Path) -> None:
    """Remove what builds that were killed have left. Raises OSError."""
    for path in clones.glob(f"{PARTIAL}*"):
        process = path.name.removeprefix(PARTIAL)
        if process.isdecimal() and not Path("/proc", process).exists():
            shutil.rmtree(path, ignore_errors=True)
