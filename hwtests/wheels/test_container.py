"""The container recipe of docs/installation.md, built and run by podman as the page says.

A bare Debian with pip in /usr/local stands in for the image python:3.13-slim.
"""

import os
import platform
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwtests.robots import host, rootfs
from hwtests.robots.shell import run
from tests.docs.markdown import ROOT, sections

HELLO = ROOT / "docs/examples/hello"
BASE = "docker.io/library/python:3.13-slim"
BASE_RECIPE = """
FROM scratch
ADD root.tar /
RUN python3 -m venv /usr/local
"""
OF_THIS_MACHINE = (Path("/etc/pip.conf"), Path("/etc/ssl/certs"))
"""So that pip works in the container as it does here."""


class Podman:
    """Podman with images of its own, that may be itself in a container."""

    def __init__(self, folder: Path) -> None:
        self._words = ["podman", "--root", str(folder / "images"), "--runroot", str(folder / "run")]
        if shutil.which("runc"):  # unlike crun, it takes both versions of cgroups together
            self._words += ["--runtime", "runc"]
        # Podman wants more files and processes than a container may have.
        self._limits = [
            f"--ulimit={name}={hard}:{hard}"
            for name, kind in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC))
            if (hard := resource.getrlimit(kind)[1]) != resource.RLIM_INFINITY
        ]

    def build(self, folder: Path, name: str) -> None:
        """Make an image of the Containerfile in a folder. Raises RobotError."""
        volumes = [f"--volume={path}:{path}:ro" for path in OF_THIS_MACHINE if path.exists()]
        self._run("build", "--isolation=chroot", "--network=host", *volumes, "-t", name, folder)

    def run(self, *words: str | Path) -> str:
        """Run a container that is removed afterwards; return what it prints. Raises RobotError."""
        return self._run("run", "--rm", *words)

    def _run(self, verb: str, *words: str | Path) -> str:
        command = [*self._words, verb, "--pull=never", *self._limits, *map(str, words)]
        return run(command, timeout=600)

    def clean(self) -> None:
        """Remove its images, and what is mounted of them."""
        subprocess.run([*self._words, "system", "reset", "--force"], check=True)


@pytest.fixture
def podman() -> Iterator[Podman]:
    """Podman, with a bare Debian that has pip as the base image of the recipe."""
    if reason := host.missing():
        pytest.skip(reason)
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    if not [*ROOT.glob(f"dist/dorad-*manylinux*_{platform.machine()}.whl")]:
        pytest.skip("there are no wheels in dist/ (make wheels)")
    with host.alone():
        debian = rootfs.build(host.FOLDER, ("python3-venv", "ca-certificates"))
    folder = host.FOLDER / f"container-{os.getpid()}"
    folder.mkdir()
    podman = Podman(folder)
    try:
        base = folder / "base"
        base.mkdir()
        run(["tar", "--one-file-system", "-C", str(debian), "-cf", str(base / "root.tar"), "."])
        (base / "Containerfile").write_text(BASE_RECIPE)
        podman.build(base, BASE)
        yield podman
    finally:
        podman.clean()
        shutil.rmtree(folder)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the recipe takes the wheel for amd64")
def test_the_recipe_makes_an_image_that_runs_a_dataflow(podman: Podman, tmp_path: Path) -> None:
    blocks = {
        block.language: block.text
        for section in sections(ROOT / "docs/installation.md")
        if section.title == "A container"
        for block in section.blocks
    }
    (tmp_path / "Containerfile").write_text(blocks["dockerfile"])
    shutil.copytree(ROOT / "dist", tmp_path / "dist")
    podman.build(tmp_path, "robot")
    volume = shutil.copytree(HELLO, tmp_path / "robot")
    (words,) = [
        line.removeprefix("podman run --rm ").replace('"$PWD:/robot"', f"{volume}:/robot").split()
        for line in blocks["sh"].splitlines()
        if line.startswith("podman run ")
    ]
    assert "stdout listener: heard: hello 5" in podman.run(*words)
    assert "data plane: native" in podman.run(*words, "dora", "--version")
    assert podman.run(*words, "ls", "/opt") == ""
