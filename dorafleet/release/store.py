"""The releases on the operator's disk: their manifests, signatures and objects."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from dorad.atomicfile import atomic_file
from dorad.release.errors import ReleaseError
from dorad.release.manifest import Manifest, Object, all_files, id_of, parse
from dorad.release.objects import ObjectStore
from dorafleet.release.errors import BuildError

SHORT = 12
"""Digits of an id that are shown."""
_PREFIX = re.compile(r"[0-9a-f]{4,64}")
_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A signed release."""

    id: str
    content: bytes
    """The bytes of the manifest."""
    signature: bytes
    manifest: Manifest

    @property
    def short(self) -> str:
        """The first digits of its id."""
        return self.id[:SHORT]

    def __str__(self) -> str:
        return f"{self.manifest.name}@{self.manifest.sequence} ({self.short})"


class Store:
    """A folder with releases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects = ObjectStore(folder)
        self.manifests = folder / "manifests"

    def add(self, content: bytes, signature: bytes) -> Bundle:
        """Add a release whose objects are in the store. Raises OSError."""
        self.manifests.mkdir(parents=True, exist_ok=True)
        release = id_of(content)
        for name, text in ((f"{release}.sig", signature), (release, content)):
            with atomic_file(self.manifests / name, mode=0o666) as file:
                file.write(text)
        return Bundle(release, content, signature, parse(content))

    def all(self) -> list[Bundle]:
        """Return all releases, by name and sequence, newest last.

        Raises:
            BuildError: a manifest is damaged.
        """
        try:
            names = [path.name for path in self.manifests.iterdir() if _ID.fullmatch(path.name)]
        except FileNotFoundError:
            return []
        bundles = [self._load(name) for name in names]
        return sorted(bundles, key=lambda each: (each.manifest.name, each.manifest.sequence))

    def newest(self, name: str) -> Bundle | None:
        """Return the release of a dataflow with the highest sequence, None without one."""
        return next((each for each in reversed(self.all()) if each.manifest.name == name), None)

    def find(self, wanted: str) -> Bundle:
        """Return the release that a text names: the start of its id, `name`, or `name@sequence`.

        A name alone means its newest release. Raises BuildError.
        """
        if _ID.fullmatch(wanted) and (self.manifests / wanted).exists():
            return self._load(wanted)
        every = self.all()
        if _PREFIX.fullmatch(wanted):
            matching = [each for each in every if each.id.startswith(wanted)]
            if len(matching) > 1:
                raise BuildError(f"{len(matching)} releases start with {wanted}", "use more digits")
            if matching:
                return matching[0]
        name, _, sequence = wanted.partition("@")
        named = [each for each in every if each.manifest.name == name]
        if sequence:
            named = [each for each in named if str(each.manifest.sequence) == sequence]
        if not named:
            message = f"there is no release {wanted[:100]!r} in {self.folder}"
            hint = "`dorafleet release list` shows what is there"
            raise BuildError(message, hint, code="not-found")
        return named[-1]

    def lacking(self, manifest: Manifest) -> list[Object]:
        """Return the objects of a release, for any machine, that are not in the store."""
        return self.objects.lacking(sorted({file.object for file in all_files(manifest)}))

    def check(self, bundle: Bundle) -> int:
        """Check the content of every file of a release; return how many files there are.

        Raises:
            BuildError: some are missing or damaged.
        """
        objects = sorted({file.object for file in all_files(bundle.manifest)})
        damaged = [each for each in objects if not self.objects.check(each)]
        if damaged:
            raise BuildError(
                f"{len(damaged)} of {len(objects)} objects of {bundle} are missing or damaged in "
                f"{self.folder}",
                "build it again",
            )
        return sum(1 for _ in all_files(bundle.manifest))

    def _load(self, release: str) -> Bundle:
        path = self.manifests / release
        try:
            content = path.read_bytes()
            signature = path.with_name(f"{release}.sig").read_bytes()
            manifest = parse(content)
        except (OSError, ReleaseError) as error:
            raise BuildError(f"{path} cannot be read: {error}") from error
        if id_of(content) != release:
            raise BuildError(f"{path} was changed", "remove it, and build the release again")
        return Bundle(release, content, signature, manifest)


def default_folder() -> Path:
    """Return the folder of this user's releases."""
    base = os.environ.get("XDG_DATA_HOME", "")
    home = Path(base) if base.startswith("/") else Path.home() / ".local/share"
    return home / "dorafleet/releases"
