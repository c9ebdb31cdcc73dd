"""Wheels are archives of strangers: no file of one takes more memory than it says."""

import tracemalloc
import zipfile
from pathlib import Path

import pytest

from dorad.release.objects import ObjectStore
from dorafleet.release.errors import BuildError
from dorafleet.release.wheels import MAX_FREE, unpack


def archive(
    folder: Path, content: bytes, method: int = zipfile.ZIP_DEFLATED, name: str = "a.bin"
) -> Path:
    path = folder / "evil-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr(name, content)
    return path


def test_a_file_is_unpacked_with_its_content(tmp_path: Path) -> None:
    path = archive(tmp_path, b"x" * 100_000)
    package = unpack(path, ObjectStore(tmp_path / "store"))
    assert [(file.path, file.size) for file in package.files] == [("site/a.bin", 100_000)]


def test_a_file_that_unpacks_to_much_more_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, bytes(MAX_FREE + 1))
    assert path.stat().st_size < 100_000
    with pytest.raises(BuildError, match="unpacks to"):
        unpack(path, ObjectStore(tmp_path / "store"))


def test_a_file_that_says_less_than_it_has_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    size = 50 << 20
    path = archive(tmp_path, bytes(size))
    raw = path.read_bytes()
    assert raw.count(size.to_bytes(4, "little")) == 2
    path.write_bytes(raw.replace(size.to_bytes(4, "little"), (10).to_bytes(4, "little")))
    tracemalloc.start()
    with pytest.raises(BuildError):
        unpack(path, ObjectStore(tmp_path / "store"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 << 20


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_that_wheels_do_not_use_is_refused(tmp_path: Path, method: int) -> None:
    """It would be unpacked at once, regardless of the stated size."""
    with pytest.raises(BuildError, match="in an unknown way"):
        unpack(archive(tmp_path, bytes(100), method), ObjectStore(tmp_path / "store"))


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "a\nb", "x" * 300, "a/" * 80 + "b"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BuildError, match="the path"):
        unpack(archive(tmp_path, b"x", name=name), ObjectStore(tmp_path / "store"))
