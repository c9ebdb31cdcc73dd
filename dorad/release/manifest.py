"""The manifest of a release: which files it has, for which machines, in one order of bytes.

It comes from another machine: `parse` bounds everything, and refuses each path that could lead out
of a tree.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from dorad.dataflow.secrets import MAX_NODE_SECRETS
from dorad.release.errors import ReleaseError

FORMAT: Final = 2
"""Since 2 nodes have their inputs, and the machines that they may run on."""
INPUTS_SINCE: Final = (0, 2)
"""The first version of dorad that reads format 2. For older ones releases have format 1."""
MAX_MANIFEST = 4 << 20
"""Bytes of a manifest; about 30,000 files."""
MAX_SIGNATURE = 16 << 10
"""Bytes of a signature; one of an RSA key has 2,000."""
MAX_PATH = 1024
"""Bytes of a path."""
MAX_NAME = 255
"""Bytes of one name in a path."""
MAX_DEPTH = 64
MAX_TARGETS = 16
MAX_CORES = 10_000
"""That a node may need."""
MAX_INPUT = 500
"""Characters of an input, and of its name."""
MAX_PLACED = 150_000
"""Files of all environments together: each environment is checked with all files of its packages.
"""
SITE, SCRIPTS, DATA = "site", "bin", "data"
"""The folders of a package: for modules, for commands, and for the rest."""
PTH = "zz-dorad.pth"
"""Makes the packages of dorad visible in an environment; no package may have this file."""

# In Python `$` also matches before a newline at the end; `(?!\n)` excludes that.
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$(?!\n)")]
Version = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6}){0,3}$(?!\n)")]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class _Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class File(_Struct, frozen=True, array_like=True):
    """A file: its path in the tree or in its package, and its content."""

    path: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PATH)]
    sha256: Sha256
    size: Annotated[int, msgspec.Meta(ge=0, lt=1 << 40)]
    executable: bool

    @property
    def object(self) -> Object:
        """The content that the file needs."""
        return Object(self.sha256, self.size, self.executable)


class Object(NamedTuple):
    """The content of files. Files that are executable have a separate object."""

    sha256: str
    size: int
    executable: bool


class Target(_Struct, frozen=True, order=True):
    """A kind of machine."""

    arch: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]{1,32}$(?!\n)")]
    """As `uname -m` prints it: x86_64, aarch64."""
    python: Annotated[str, msgspec.Meta(pattern=r"^(3\.[0-9]{1,3})?$(?!\n)")] = ""
    """`3.13`; empty if any will do."""
    glibc: Annotated[str, msgspec.Meta(pattern=r"^(2\.[0-9]{1,3})?$(?!\n)")] = ""
    """The oldest that will do; empty if any will."""

    def __str__(self) -> str:
        parts = [self.arch, self.python and f"python {self.python}"]
        return ", ".join(filter(None, [*parts, self.glibc and f"glibc {self.glibc}"]))


class Package(_Struct, frozen=True):
    """An unpacked wheel. Its files are in `site/`, `bin/` and `data/`."""

    name: Word
    version: Word
    files: list[File]


class Environment(_Struct, frozen=True):
    """The Python packages of one target, as indices into `Manifest.packages`."""

    target: Target
    packages: list[Annotated[int, msgspec.Meta(ge=0)]]


class Place(_Struct, frozen=True, omit_defaults=True):
    """The machines that a node may run on, of a release for several."""

    machine: str = ""
    labels: dict[str, str] = {}
    cpu: Annotated[float, msgspec.Meta(ge=0, le=MAX_CORES)] | None = None
    """Cores that it needs."""
    memory: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)] | None = None
    """Bytes that it needs."""
    gpu: Annotated[int, msgspec.Meta(ge=0, lt=1 << 20)] | None = None
    devices: list[str] = []
    avoid_machines: list[str] = []
    avoid_nodes: list[str] = []
    """Ids of nodes."""


InputText = Annotated[str, msgspec.Meta(max_length=MAX_INPUT, pattern=r"^[^\x00-\x1f\x7f]+$(?!\n)")]


class NodeContent(_Struct, frozen=True, omit_defaults=True):
    """What a node depends on, to decide whether a new release replaces it."""

    digest: Sha256
    """Of its description without its inputs, and of its files."""
    python: bool
    """Whether it runs in the environment."""
    inputs: dict[InputText, InputText] | None = None
    """Sources and options by input: a node runs on with others. None in manifests of format 1."""
    place: Place | None = None
    """None: on any machine."""
    secrets: Annotated[list[Word], msgspec.Meta(max_length=MAX_NODE_SECRETS)] = []
    """Names of its secrets, which robots must have. Left out if there are none."""


class Manifest(_Struct, frozen=True):
    """A release. Its id is the SHA-256 of `encode`."""

    format: Literal[1, 2]
    name: Name
    """Of the dataflow."""
    sequence: Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]
    """Grows with each release of the dataflow."""
    created: Annotated[int, msgspec.Meta(ge=0, lt=1 << 40)]
    """Seconds since 1970."""
    min_dorad: Version
    """The oldest version of dorad that can run it."""
    entry: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PATH)]
    """The path of the dataflow's file."""
    targets: list[Target]
    """Machines that can run it; empty for all."""
    files: list[File]
    packages: list[Package]
    environments: list[Environment]
    """Empty if the release has no Python packages, else one for each target."""
    nodes: dict[str, NodeContent]

    @property
    def has_environments(self) -> bool:
        """Whether its Python nodes run in an environment of the release."""
        return bool(self.environments)

    @property
    def places(self) -> dict[str, Place]:
        """The machines that each node may run on: all, if the manifest is too old to say so."""
        return {id_: node.place or Place() for id_, node in self.nodes.items()}


def encode(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest, always the same for the same content."""
    return msgspec.json.encode(manifest, order="deterministic")


def id_of(content: bytes) -> str:
    """Return the id of the release with this manifest."""
    return hashlib.sha256(content).hexdigest()


def parse(content: bytes) -> Manifest:
    """Decode a manifest, and check each of its paths and indices.

    Raises:
        ReleaseError: code `manifest`.
    """
    if len(content) > MAX_MANIFEST:
        raise _error(f"it has {len(content)} bytes, more than {MAX_MANIFEST}")
    try:
        version = msgspec.json.decode(content, type=_Format).format
        if not 1 <= version <= FORMAT:
            raise _error(f"its format is {version}, this program reads 1-{FORMAT}", "upgrade dorad")
        manifest = msgspec.json.decode(content, type=Manifest)
    # RecursionError: of nested lists in a value that is skipped.
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _error(str(error)) from error
    if encode(manifest) != content:
        raise _error("its bytes are not in the order that `dorafleet release build` writes")
    _check(manifest)
    return manifest


class _Format(msgspec.Struct):
    format: int


def _check(manifest: Manifest) -> None:
    paths = check_paths((file.path for file in manifest.files), "files")
    if manifest.entry not in paths:
        raise _error(f"it has no file {manifest.entry!r}, its dataflow")
    for package in manifest.packages:
        names = check_paths((file.path for file in package.files), f"package {package.name!r}")
        for name in names:
            _check_place(name, package.name)
    if len(manifest.targets) > MAX_TARGETS:
        raise _error(f"it has more than {MAX_TARGETS} targets")
    if len(set(manifest.targets)) != len(manifest.targets):
        raise _error("a target is there twice")
    if manifest.environments:
        targets = [each.target for each in manifest.environments]
        if sorted(targets) != sorted(manifest.targets):
            raise _error("its environments are not those of its targets")
        if any(not target.python for target in targets):
            raise _error("a target with an environment has no version of Python")
    _check_placed(manifest)
    for environment in manifest.environments:
        _check_environment(manifest, environment)
    if len(manifest.nodes) > MAX_NODES:
        raise _error(f"it has more than {MAX_NODES} nodes")
    for name, node in manifest.nodes.items():
        if (node.inputs is None) != (manifest.format == 1):
            which = "inputs, which format 1 has not" if manifest.format == 1 else "no inputs"
            raise _error(f"node {name[:100]!r} has {which}")
        if node.place is not None and manifest.format == 1:
            raise _error(f"node {name[:100]!r} has a place, which format 1 has not")
    _check_sizes(manifest)


MAX_NODES = 10_000


def _check_sizes(manifest: Manifest) -> None:
    sizes: dict[str, int] = {}
    for file in all_files(manifest):
        if sizes.setdefault(file.sha256, file.size) != file.size:
            raise _error(f"{file.sha256} has two sizes")


def all_files(manifest: Manifest) -> Iterator[File]:
    """Yield the files of the release for all machines."""
    yield from manifest.files
    for package in manifest.packages:
        yield from package.files


def _check_placed(manifest: Manifest) -> None:
    sizes = [len(package.files) for package in manifest.packages]
    placed = sum(
        sizes[index]
        for environment in manifest.environments
        for index in environment.packages
        if index < len(sizes)
    )
    if placed > MAX_PLACED:
        raise _error(f"its environments have more than {MAX_PLACED} files")


def _check_environment(manifest: Manifest, environment: Environment) -> None:
    """Check that packages exist, have no file in common, and hide nothing of the environment."""
    python = environment.target.python
    where = f"the environment for {environment.target}"
    if any(index >= len(manifest.packages) for index in environment.packages):
        raise _error(f"{where} names a package that is not there")
    if len(set(environment.packages)) != len(environment.packages):
        raise _error(f"{where} has a package twice")
    own = own_files(python)
    placed = list(own)
    for index in environment.packages:
        package = manifest.packages[index]
        for file in package.files:
            path = environment_path(file.path, python)
            if path in own or path.startswith("bin/python") or path == "bin/pyvenv.cfg":
                raise _error(f"package {package.name!r}: {file.path!r} hides {path} of {where}")
            placed.append(path)
    check_paths(placed, where)


def environment_path(path: str, python: str) -> str:
    """Return the path in an environment of a file of a package."""
    first, _, rest = path.partition("/")
    if first == SITE:
        return f"{site_packages(python)}/{rest}"
    return rest if first == DATA else path


def site_packages(python: str) -> str:
    """Return the folder for modules of an environment for a version of Python."""
    return f"lib/python{python}/site-packages"


def own_files(python: str) -> tuple[str, ...]:
    """Return the files that the robot makes in an environment."""
    names = ("python", "python3", f"python{python}")
    pth = f"{site_packages(python)}/{PTH}"
    return ("pyvenv.cfg", *(f"bin/{name}" for name in dict.fromkeys(names)), pth)


def check_paths(paths: Iterable[str], where: str) -> set[str]:
    """Return the paths as a set; each leads to its own place below the folder.

    Raises:
        ReleaseError: code `manifest`.
    """
    seen: set[str] = set()
    for path in paths:
        if reason := path_problem(path):
            raise _error(f"{where}: the path {path[:100]!r} {reason}")
        if path in seen:
            raise _error(f"{where}: the path {path!r} is there twice")
        seen.add(path)
    folders: set[str] = set()
    for path in seen:
        folder = path.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    if both := seen & folders:
        raise _error(f"{where}: {min(both)!r} is a file and a folder")
    return seen


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def path_problem(path: str) -> str:
    """Return why a path is not a plain relative one, empty if it is."""
    if len(path.encode(errors="surrogatepass")) > MAX_PATH:
        return f"has more than {MAX_PATH} bytes"
    if _CONTROL.search(path):
        return "contains a control character"
    if path.startswith("/"):
        return "is absolute"
    parts = path.split("/")
    if len(parts) > MAX_DEPTH:
        return f"is deeper than {MAX_DEPTH} folders"
    for part in parts:
        if part in ("", ".", ".."):
            return f"contains {part!r}" if part else "contains an empty name"
        if len(part.encode(errors="surrogatepass")) > MAX_NAME:
            return f"contains a name of more than {MAX_NAME} bytes"
    return ""


def _check_place(path: str, package: str) -> None:
    """Check that a file of a package is in one of its folders."""
    first, _, rest = path.partition("/")
    if first not in (SITE, SCRIPTS, DATA) or not rest:
        raise _error(f"package {package!r}: {path!r} is in none of its folders")


def _error(message: str, hint: str | None = None) -> ReleaseError:
    return ReleaseError("manifest", f"the manifest is not valid: {message}", hint)
