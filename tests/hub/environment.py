"""A venv with third-party nodes from PyPI, the dora-rs wheel they pull in, and ours beside it.

    python -m tests.hub.environment DIR

makes or refreshes it. It is recreated when the lists below or the Python version change; our own
distribution is installed again when its sources change.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT = REPOSITORY / ".venv-hub"

LIBRARIES = (
    "numpy",
    "pyarrow",
    "opencv-python-headless",
    "PyYAML",
    "pandas",
    "pillow",
    "pillow-avif-plugin",
    "pytest",
)
"""What the nodes import; some ask for numpy<2 and some for numpy>=2, so pip may not choose."""

ROBOT_NODES = (
    "dora-echo==0.5.0",
    "pyarrow-sender==0.5.0",
    "pyarrow-assert==0.5.0",
    "dora-openarm-dummy-camera==1.0.1",
    "dora-opencv-image-splitter==0.1.0",
    "dora-openarm-dummy==1.0.0",
    "dora-parquet-recorder==0.5.0",
    "dora-openarm-selector==0.1.0",
    "dora-openarm-dummy-policy-server==1.0.0",
    "dora-openarm-actions-executor==1.1.0",
)
"""Those that need nothing but numpy and OpenCV beside dorad's package."""

NODES = (
    *ROBOT_NODES,
    "dora-openarm-quitter==1.0.0",
    "opencv-video-capture==0.5.0",
    "opencv-plot==0.5.0",
    "llama-factory-recorder==0.5.0",
    "dora-rs==1.1.0",
)
"""Installed without their dependencies. dora-rs is what an ordinary `pip install NODE` adds."""

ARCHIVES = ("dora-openarm-selector==0.1.0", "dora-openarm-dataset-recorder==0.5.0")
"""Source archives whose own test suites are run."""


@dataclass(frozen=True)
class Environment:
    """A prepared venv."""

    folder: Path

    @property
    def bin(self) -> Path:
        """The folder of `python`, `dora` and the nodes' commands."""
        return self.folder / "bin"

    @property
    def python(self) -> Path:
        """The venv's interpreter."""
        return self.bin / "python"

    @property
    def archives(self) -> Path:
        """The folder of the downloaded source archives."""
        return self.folder / "archives"


def prepare(folder: Path = DEFAULT) -> Environment:
    """Return the venv in this folder, made or refreshed as needed.

    Safe to call from several processes at once. Raises subprocess.CalledProcessError when pip
    fails; pip's own words are then on stderr.
    """
    environment = Environment(folder.resolve())
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent):
        stamp = environment.folder / "third-party.sha256"
        if _read(stamp) != (wanted := _digest_of_lists()):
            _install_third_party(environment)
            stamp.write_text(wanted, encoding="utf-8")
        stamp = environment.folder / "ours.sha256"
        if _read(stamp) != (wanted := _digest_of_sources()):
            _pip(environment, "install", str(REPOSITORY))
            stamp.write_text(wanted, encoding="utf-8")
    return environment


def _install_third_party(environment: Environment) -> None:
    if environment.folder.exists():
        shutil.rmtree(environment.folder)
    subprocess.run([sys.executable, "-m", "venv", environment.folder], check=True)
    _pip(environment, "install", *LIBRARIES)
    _pip(environment, "install", "--no-deps", *NODES)
    archives = ("--no-binary", ":all:", "--no-deps", "--dest", str(environment.archives))
    for requirement in ARCHIVES:
        _pip(environment, "download", *archives, requirement)


def _pip(environment: Environment, *arguments: str) -> None:
    pip = [str(environment.python), "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, *arguments], check=True, stdin=subprocess.DEVNULL)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.exists() else None


def _digest_of_lists() -> str:
    lists = (sys.version, *LIBRARIES, "--no-deps", *NODES, "--archives", *ARCHIVES)
    return hashlib.sha256("\n".join(lists).encode()).hexdigest()


def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    sources = [
        file
        for file in (REPOSITORY / "dorad").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    ]
    for file in sorted([REPOSITORY / "pyproject.toml", *sources]):
        digest.update(f"{file.relative_to(REPOSITORY)}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit("usage: python -m tests.hub.environment [DIR]")
    print(prepare(Path(sys.argv[1]) if len(sys.argv) == 2 else DEFAULT).folder)
