"""`make apt-repo`: apt installs from it, and refuses what was changed after it was signed."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.commands import fails, succeeds

ROOT = Path(__file__).parents[2]
TOOLS = {"apt-ftparchive": "apt-utils", "gpg": "gpg", "apt-get": "apt", "dpkg-deb": "dpkg"}

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, TOOLS)),
    reason=f"tools are missing (sudo apt-get install {' '.join(TOOLS.values())})",
)


class Machine:
    """Folders in which apt works as it does in /, for a user without rights."""

    def __init__(self, folder: Path, repository: Path, key: Path) -> None:
        self.folder = folder
        for name in ("state/lists/partial", "cache/archives/partial", "etc/sources.list.d"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        sources = (repository / "dorad.sources").read_text()
        sources = sources.replace("https://packages.example.org/dorad", f"file:{repository}")
        sources = sources.replace("/usr/share/keyrings/dorad.gpg", str(key))
        (folder / "etc/sources.list.d/dorad.sources").write_text(sources)

    def apt(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run apt-get; accept any exit code."""
        places = {
            "Dir::State": self.folder / "state",
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder / "cache",
            "Dir::Etc": self.folder / "etc",
            "APT::Sandbox::User": "root",
        }
        options = [word for each in places.items() for word in ("-o", "=".join(map(str, each)))]
        return subprocess.run(
            ["apt-get", "-q", *options, *words],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def make_package(folder: Path) -> Path:
    """Build a small package."""
    tree = folder / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    control = {
        "Package": "dorad",
        "Version": "1.0",
        "Architecture": subprocess.check_output(
            ["dpkg", "--print-architecture"], text=True
        ).strip(),
        "Maintainer": "nobody <nobody@example.org>",
        "Description": "a package",
    }
    text = "".join(f"{key}: {value}\n" for key, value in control.items())
    (tree / "DEBIAN/control").write_text(text)
    package = folder / f"dorad_1.0_{control['Architecture']}.deb"
    command = ["dpkg-deb", "-Zgzip", "--root-owner-group", "--build", tree, package]
    subprocess.run(command, check=True, capture_output=True)
    return package


def make_key(home: Path) -> None:
    """Make a key named tests."""
    words = ["--passphrase", "", "--quick-generate-key", "tests", "ed25519", "sign", "never"]
    subprocess.run(["gpg", "--homedir", home, "--batch", "--quiet", *words], check=True)


@pytest.fixture
def key_folder() -> Iterator[Path]:
    """A folder for keys; sockets in it need a short path."""
    with tempfile.TemporaryDirectory(prefix="gpg-") as home:
        Path(home).chmod(0o700)
        yield Path(home)
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)


@pytest.fixture
def repository(tmp_path: Path, key_folder: Path) -> Path:
    make_key(key_folder)
    make_package(tmp_path)
    made = tmp_path / "apt"
    subprocess.run(
        [ROOT / "packaging/apt-repo.sh", tmp_path, made],
        env={**os.environ, "GNUPGHOME": str(key_folder), "APT_KEY": "tests"},
        check=True,
    )
    return made


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def test_apt_takes_a_package_with_the_key_and_refuses_a_changed_one(
    repository: Path, tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "machine", repository, repository / "dorad.gpg")
    updated = machine.apt("update")
    assert updated.returncode == 0, updated.stderr
    assert "W:" not in updated.stderr
    (package,) = (repository / "pool").glob("*.deb")
    flip(package)
    refused = machine.apt("download", "dorad")
    assert refused.returncode != 0
    assert "Hash Sum mismatch" in refused.stderr
    flip(package)
    succeeds(machine.apt("download", "dorad"))
    assert (machine.folder / package.name).read_bytes() == package.read_bytes()


def test_apt_refuses_a_changed_index_and_another_key(
    repository: Path, key_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.gpg"
    with tempfile.TemporaryDirectory(prefix="gpg-") as home:
        Path(home).chmod(0o700)
        make_key(Path(home))
        exported = ["gpg", "--homedir", home, "--batch", "--export", "tests"]
        other.write_bytes(subprocess.check_output(exported))
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)
    stranger = Machine(tmp_path / "stranger", repository, other).apt("update")
    assert stranger.returncode != 0
    assert "is not signed" in stranger.stderr
    for index in repository.glob("dists/stable/main/binary-*/Packages*"):
        flip(index)
    refused = Machine(tmp_path / "machine", repository, repository / "dorad.gpg").apt("update")
    assert refused.returncode != 0
    assert "Hash Sum mismatch" in refused.stderr + refused.stdout


def test_without_packages_it_says_how_to_build_them(tmp_path: Path) -> None:
    command = [ROOT / "packaging/apt-repo.sh", tmp_path, tmp_path / "apt"]
    fails(subprocess.run(command, capture_output=True, text=True, check=False), 1, "make deb")
    assert not (tmp_path / "apt").exists()


def test_a_folder_with_something_else_is_not_replaced(tmp_path: Path) -> None:
    make_package(tmp_path)
    thesis = tmp_path / "home/thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("years")
    command = [ROOT / "packaging/apt-repo.sh", tmp_path, thesis.parent]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "is not empty, and no repository of dorad" in refused.stderr
    assert thesis.read_text() == "years"
