"""The contents of files, by their SHA-256, as files that trees link to.

What is being received is in `incoming/`, and becomes an object when its SHA-256 is right. A power
cut may damage objects: `check` finds that, and `Trees.stage` puts all of a tree on the disk.
"""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dorad.release.errors import ReleaseError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from dorad.release.manifest import Object

CHUNK = 1 << 20
_log = logging.getLogger(__name__)


class ObjectStore:
    """A folder of objects. Its files are readable by all users and read-only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._objects = folder / "objects"
        self._incoming = folder / "incoming"

    def path(self, wanted: Object) -> Path:
        """Return where an object is, or would be."""
        name = wanted.sha256[2:] + (".x" if wanted.executable else "")
        return self._objects / wanted.sha256[:2] / name

    def has(self, wanted: Object) -> bool:
        """Return True if an object is there with its size; `check` reads its content, too."""
        try:
            return self.path(wanted).stat().st_size == wanted.size
        except FileNotFoundError:
            return False

    def lacking(self, wanted: Collection[Object]) -> list[Object]:
        """Return those that are not there, in the same order."""
        return [each for each in wanted if not self.has(each)]

    def check(self, wanted: Object) -> bool:
        """Return True if the content of an object is right; remove it if it is not."""
        path = self.path(wanted)
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            _log.warning("the object %s cannot be read: %s", wanted.sha256, error)
            digest = ""
        if digest == wanted.sha256:
            return True
        _log.warning("the object %s is damaged; it is removed", wanted.sha256)
        path.unlink(missing_ok=True)
        return False

    def read(self, wanted: Object) -> bytes:
        """Return the content of an object. Raises OSError."""
        return self.path(wanted).read_bytes()

    def add(self, wanted: Object, content: Path) -> None:
        """Copy a file into the store.

        Raises:
            ReleaseError: code `damaged`: it is not the object.
        """
        with self.open_partial(wanted.sha256) as target, content.open("rb") as source:
            target.truncate(0)
            while piece := source.read(CHUNK):
                target.write(piece)
        self.finish(wanted)

    def partial(self, sha256: str) -> Path:
        """Return the file for the part of an object that has arrived."""
        return self._incoming / sha256

    def partial_size(self, sha256: str) -> int:
        """Return how many bytes of an object have arrived."""
        try:
            return self.partial(sha256).stat().st_size
        except FileNotFoundError:
            return 0

    def partials(self, limit: int | None = None) -> dict[str, int]:
        """Return the sizes of what has partly arrived, by SHA-256, at most `limit` of them."""
        try:
            files = sorted(self._incoming.iterdir())[:limit]
        except FileNotFoundError:
            return {}
        return {path.name: path.stat().st_size for path in files}

    def open_partial(self, sha256: str) -> _Writer:
        """Open the file for an object that arrives, at its end."""
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _Writer(self.partial(sha256))

    def finish(self, wanted: Object) -> None:
        """Make an object of the part that has arrived.

        Raises:
            ReleaseError: code `damaged`: its content is another; it was removed.
        """
        partial = self.partial(wanted.sha256)
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(file.fileno()).st_size
            if (digest, size) != (wanted.sha256, wanted.size):
                partial.unlink()
                message = f"an object arrived with the content {digest}, not {wanted.sha256}"
                raise ReleaseError("damaged", message, "try again")
            os.fchmod(file.fileno(), 0o555 if wanted.executable else 0o444)
        path = self.path(wanted)
        if not path.parent.is_dir():
            make_folder(path.parent)
        partial.replace(path)

    def forget_partials(self, sha256: Collection[str] | None = None) -> None:
        """Remove the parts of these objects, or of all."""
        with suppress(FileNotFoundError):
            for path in list(self._incoming.iterdir()):
                if sha256 is None or path.name in sha256:
                    path.unlink(missing_ok=True)

    def remove_unused(self, wanted: Collection[Object], trees: Collection[Path]) -> int:
        """Remove the objects that none of `trees` links to and that are not in `wanted`.

        Return how many bytes were freed. Links that another user has made keep no object.
        """
        kept = {self.path(each) for each in wanted}
        linked = {
            Path(folder, name).lstat().st_ino
            for tree in trees
            for folder, _, names in os.walk(tree)
            for name in names
        }
        freed = elsewhere = 0
        for path in self.files():
            status = path.lstat()
            if path in kept or status.st_ino in linked:
                continue
            path.unlink()
            if status.st_nlink == 1:
                freed += status.st_size
            else:
                elsewhere += 1
        if elsewhere:
            _log.warning(
                "%d files that no release needs have links outside of %s, which keep their room on"
                " the disk (find them with `find / -xdev -user dorad-agent -links +1`)",
                *(elsewhere, self.folder),
            )
        return freed

    def files(self) -> Iterator[Path]:
        """Yield the files of all objects."""
        with suppress(FileNotFoundError):
            for folder in list(self._objects.iterdir()):
                yield from list(folder.iterdir())


class _Writer:
    """A partial file, open for appending."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._number = os.open(path, flags, 0o600)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._number)

    def truncate(self, size: int) -> None:
        """Keep only the first bytes."""
        os.ftruncate(self._number, size)

    def write(self, content: bytes | memoryview) -> None:
        """Append bytes. Raises OSError."""
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(self._number, rest) :]


def make_folder(path: Path) -> None:
    """Create a folder and its parents, readable by all users, independently of the umask."""
    if not path.parent.is_dir():
        make_folder(path.parent)
    path.mkdir(exist_ok=True)
    path.chmod(0o755)
