"""Nodes with `git`: fetched by a build, pinned by a lock file, and run from their clone."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from dorad.dataflow import gitsources
from dorad.dataflow.load import load
from tests.cli.dora import dora
from tests.harness.commands import fails

SPEAKS = "from dora import Node\nnode = Node()\nprint('I am {}')\n"
"""A node that says which version of it runs, and leaves."""


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=tests", "-c", "user.email=tests@localhost")
    return subprocess.run(
        ["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


class Repository:
    """A repository with a program `say.py`, read through a `file:` URL."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        git(folder, "init", "--quiet", "--initial-branch=main")
        self.folder = folder
        self.url = f"file://{folder}"

    def commit(self, word: str, **files: str) -> str:
        """Commit a `say.py` that says a word; return the commit."""
        for name, text in {"say.py": SPEAKS.format(word), **files}.items():
            (self.folder / name).write_text(text)
        git(self.folder, "add", ".")
        git(self.folder, "commit", "--quiet", "-m", word)
        return git(self.folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "talker.git")


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    folder = tmp_path / "flow"
    folder.mkdir()
    return folder


def write(folder: Path, repository: Repository, *lines: str) -> None:
    text = "".join(f"    {line}\n" for line in (f"git: {repository.url}", *lines))
    (folder / "flow.yml").write_text(f"nodes:\n  - id: a\n    path: say.py\n{text}")


def build(folder: Path, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return dora("build", "flow.yml", *options, cwd=folder, env={**os.environ, **settings})


def clones(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("git/**/say.py"))


def test_a_node_runs_from_its_clone(flow: Path, repository: Repository) -> None:
    commit = repository.commit("one")
    write(flow, repository, "build: sh -c 'pwd && touch built'")
    result = dora("run", "flow.yml", cwd=flow)
    assert (result.returncode, clones(flow)) == (0, [commit])
    assert "I am one" in result.stdout
    (built,) = flow.glob("git/**/built")
    assert f"a: {built.parent}" in result.stderr.splitlines()


@pytest.mark.parametrize(
    "key", ["branch: side", "tag: noted", "tag: plain", "rev: {commit}", "rev: {short}"]
)
def test_the_commit_that_is_named_is_fetched(flow: Path, repository: Repository, key: str) -> None:
    commit = repository.commit("wanted")
    git(repository.folder, "branch", "side")
    git(repository.folder, "tag", "plain")
    git(repository.folder, "tag", "-a", "-m", "with a text", "noted")
    repository.commit("newer")
    write(flow, repository, key.format(commit=commit, short=commit[:7]))
    assert build(flow).stdout.splitlines()[-1] == "fetched 1 source"
    assert clones(flow) == [commit]


def test_a_branch_is_followed_by_a_build_and_kept_by_a_lock_file(
    flow: Path, repository: Repository
) -> None:
    first = repository.commit("first")
    write(flow, repository, "branch: main")
    assert "flow.dora-lock.yaml" in build(flow, "--write-lockfile").stdout
    second = repository.commit("second")
    assert build(flow, "--locked").returncode == 0
    assert clones(flow) == [first]
    assert "I am first" in dora("run", "flow.yml", "--locked", cwd=flow).stdout
    assert build(flow).returncode == 0
    assert clones(flow) == sorted([first, second])
    assert "I am second" in dora("run", "flow.yml", cwd=flow).stdout


def test_a_locked_build_on_another_machine_fetches_the_old_commit(
    flow: Path, repository: Repository
) -> None:
    first = repository.commit("first")
    write(flow, repository)
    build(flow, "--write-lockfile", "--lockfile", "pins.yaml")
    repository.commit("second")
    shutil.rmtree(flow / "git")
    assert build(flow, "--locked", "--lockfile", "pins.yaml").returncode == 0
    assert clones(flow) == [first]


def test_a_lock_file_is_that_of_dora(flow: Path, repository: Repository) -> None:
    """Each reads the other's."""
    commit = repository.commit("one")
    write(flow, repository, "tag: v1")
    git(repository.folder, "tag", "v1")
    build(flow, "--write-lockfile")
    lock = yaml.safe_load((flow / "flow.dora-lock.yaml").read_text())
    assert lock.pop("descriptor_fingerprint") == gitsources.fingerprint(load(flow / "flow.yml"))
    assert lock == {
        "version": 2,
        "git_sources": {"a": {"repo": repository.url, "commit_hash": commit}},
    }


def test_the_fingerprint_is_the_one_that_dora_writes(tmp_path: Path) -> None:
    """As in the lock file that dora 1.1.0 wrote for this dataflow."""
    source = "    git: file:///tmp/lk/repo\n    path: say.py\n"
    (tmp_path / "flow.yml").write_text(
        f"nodes:\n  - id: b\n    branch: side\n{source}  - id: a\n{source}"
    )
    assert gitsources.fingerprint(load(tmp_path / "flow.yml")) == "3b355ff05d2dfc7a"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("rm", "there is no lock file"),
        ("version", "version 9 is not supported"),
        ("source", "is for other `git` sources than those of the file"),
        ("broken", "is not a lock file"),
        ("short", "'abc' is not a commit"),
    ],
)
def test_a_lock_file_that_does_not_fit_is_refused_and_nothing_is_fetched(
    flow: Path, repository: Repository, change: str, said: str
) -> None:
    commit = repository.commit("one")
    write(flow, repository)
    build(flow, "--write-lockfile")
    shutil.rmtree(flow / "git")
    lock = flow / "flow.dora-lock.yaml"
    match change:
        case "rm":
            lock.unlink()
        case "version":
            lock.write_text(lock.read_text().replace("version: 2", "version: 9"))
        case "source":
            write(flow, repository, "branch: main")
        case "broken":
            lock.write_text("[1, 2]")
        case _:
            lock.write_text(lock.read_text().replace(commit, "abc"))
    fails(build(flow, "--locked"), 1, said, "--write-lockfile")
    assert not (flow / "git").exists()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("branch: mian", "(branch mian): there is none (did you mean `main`?)"),
        ("tag: v2", "(tag v2): there is none (it has v1)"),
        ("rev: 0123456789012345678901234567890123456789", "cannot fetch"),
        ("rev: deadbeef", "cannot fetch"),
        ("rev: wrong", "(rev wrong): there is none"),
    ],
)
def test_a_reference_that_is_not_there_is_named_with_the_nearest(
    flow: Path, repository: Repository, key: str, said: str
) -> None:
    repository.commit("one")
    git(repository.folder, "tag", "v1")
    write(flow, repository, key)
    fails(build(flow), 1, "node 'a'", said)
    assert clones(flow) == []
    assert list(flow.glob("git/.fetch-*")) == []


def test_a_repository_that_is_away_stops_a_build_but_not_a_run(
    flow: Path, repository: Repository
) -> None:
    commit = repository.commit("one")
    write(flow, repository)
    assert build(flow).returncode == 0
    repository.folder.rename(repository.folder.with_name("away"))
    fails(build(flow), 1, f"node 'a': cannot fetch {repository.url}")
    assert build(flow, "--offline").returncode == 0
    ran = dora("run", "flow.yml", cwd=flow)
    assert "I am one" in ran.stdout
    assert f"commit {commit[:12]}, fetched earlier, is used" in ran.stderr


def test_a_start_without_a_build_says_what_to_do(flow: Path, repository: Repository) -> None:
    repository.commit("one")
    write(flow, repository)
    fails(build(flow, "--offline"), 1, "it was not fetched yet (build without --offline)")


def test_a_killed_fetch_leaves_nothing_that_counts_as_a_clone(
    flow: Path, repository: Repository
) -> None:
    commit = repository.commit("one")
    write(flow, repository)
    (flow / "git" / ".fetch-999999999").mkdir(parents=True)
    assert build(flow).returncode == 0
    assert clones(flow) == [commit]
    assert list(flow.glob("git/.fetch-*")) == []


def test_hooks_of_this_machine_and_of_a_surrounding_git_do_not_run(
    flow: Path, repository: Repository, tmp_path: Path
) -> None:
    """A build in a hook has GIT_DIR set; its checkout must not be that of the user's repository."""
    repository.commit("one")
    other = Repository(tmp_path / "mine.git")
    mine = other.commit("mine")
    template = tmp_path / "template" / "hooks"
    template.mkdir(parents=True)
    (template / "post-checkout").write_text(f"#!/bin/sh\ntouch {tmp_path}/hooked\n")
    (template / "post-checkout").chmod(0o755)
    write(flow, repository)
    settings = {"GIT_DIR": str(other.folder / ".git"), "GIT_TEMPLATE_DIR": str(template.parent)}
    assert build(flow, **settings).returncode == 0
    assert not (tmp_path / "hooked").exists()
    assert git(other.folder, "rev-parse", "HEAD") == mine
    assert git(other.folder, "status", "--porcelain") == ""


def test_a_password_in_a_url_is_not_shown(flow: Path, repository: Repository) -> None:
    repository.url = "http://robot:hunter2@127.0.0.1:1/talker.git"
    write(flow, repository)
    result = build(flow)
    assert result.returncode == 1
    assert "hunter2" not in result.stdout + result.stderr
    assert "http://…@127.0.0.1:1/talker.git" in result.stderr


def test_nodes_of_one_repository_share_a_clone(flow: Path, repository: Repository) -> None:
    commit = repository.commit("one")
    node = f"    path: say.py\n    git: {repository.url}\n"
    (flow / "flow.yml").write_text(f"nodes:\n  - id: a\n{node}  - id: b\n{node}")
    assert build(flow).stdout.count("fetching") == 1
    assert clones(flow) == [commit]


def test_submodules_come_along_but_none_that_names_a_folder_of_this_machine(
    flow: Path, repository: Repository, tmp_path: Path
) -> None:
    Repository(tmp_path / "inner.git").commit("inner")
    repository.commit("one")
    allowed = ("-c", "protocol.file.allow=always")
    git(
        repository.folder, *allowed, "submodule", "add", "--quiet", f"{tmp_path}/inner.git", "inner"
    )
    repository.commit("two")
    write(flow, repository)
    fails(build(flow), 1, "transport 'file' not allowed")


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/a/b.git",
        "ssh://git@example.org:22/../../etc",
        "git@example.org:team/../../x.git",
        "file:///srv/.hidden/..",
        "https://user:secret@example.org//x",
    ],
)
def test_no_url_leads_out_of_the_folder_of_clones(tmp_path: Path, url: str) -> None:
    folder = gitsources.clone_folder(tmp_path, url, "a" * 40)
    assert Path(os.path.normpath(folder)) == folder
    assert folder.is_relative_to(tmp_path / "git")
    assert "secret" not in str(folder)


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', '{"format": 1, "sources": [{}]}'])
def test_a_damaged_note_of_what_was_fetched_is_named(
    flow: Path, repository: Repository, text: str
) -> None:
    repository.commit("one")
    write(flow, repository)
    build(flow)
    (flow / "git" / "sources.json").write_text(text)
    fails(build(flow), 1, "git/sources.json")
