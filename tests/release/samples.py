"""Small releases, signed with a key of the test, and robots that trust it."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh
import msgspec

from dorad.release.machine import Machine
from dorad.release.manifest import (
    Environment,
    File,
    Manifest,
    NodeContent,
    Object,
    Package,
    encode,
    id_of,
)
from dorad.release.signature import ALLOWED, NAMESPACE, Signers
from dorad.release.trees import Trees

KEY = asyncssh.generate_private_key("ssh-ed25519")
OTHER = asyncssh.generate_private_key("ssh-ed25519")
MACHINE = Machine("x86_64", "3.11", "2.36", "0.1.0")
FLOW = b"nodes:\n  - id: a\n    path: a.py\n    outputs: [x]\n"
DIGEST = "0" * 64


def public(key: asyncssh.SSHKey) -> str:
    return key.export_public_key("openssh").decode().strip()


def object_of(content: bytes, *, executable: bool = False) -> Object:
    return Object(hashlib.sha256(content).hexdigest(), len(content), executable)


def file_of(path: str, content: bytes, *, executable: bool = False) -> File:
    return File(path, *object_of(content, executable=executable))


@dataclass
class Release:
    """A manifest with its signature and the contents of its files."""

    content: bytes
    signature: bytes
    objects: dict[Object, bytes] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return id_of(self.content)


def release(
    given: dict[str, bytes] | None = None,
    packages: dict[str, dict[str, bytes]] | None = None,
    *,
    sequence: int = 1,
    key: asyncssh.SSHKey = KEY,
    machine: Machine = MACHINE,
    created: int = 1_790_000_000,
    **more: object,
) -> Release:
    contents = {"dataflow.yml": FLOW, "a.py": b"print(1)\n"} if given is None else given
    wheels = packages or {}
    manifest = Manifest(
        format=1,
        name="flow",
        sequence=sequence,
        created=created,
        min_dorad="0.1.0",
        entry="dataflow.yml",
        targets=[machine.target],
        files=[file_of(*each) for each in contents.items()],
        packages=[
            Package(name, "1.0", [file_of(*each) for each in found.items()])
            for name, found in wheels.items()
        ],
        environments=[Environment(machine.target, list(range(len(wheels))))] if wheels else [],
        nodes={"a": NodeContent(DIGEST, python=True)},
    )
    content = encode(msgspec.structs.replace(manifest, **more))
    every = [*contents.values(), *(each for found in wheels.values() for each in found.values())]
    objects = {object_of(each): each for each in every}
    return Release(content, sign(content, key), objects)


def sign(content: bytes, key: asyncssh.SSHKey = KEY, namespace: str = NAMESPACE) -> bytes:
    return asyncssh.create_sshsig(key, content, namespace=namespace)


@dataclass
class Robot:
    """A folder for releases, and a folder with the keys that it trusts."""

    folder: Path
    machine: Machine = MACHINE

    def __post_init__(self) -> None:
        self.signers.mkdir(parents=True)
        self.trust(public(KEY))

    @property
    def signers(self) -> Path:
        return self.folder / "etc"

    def trust(self, *keys: str) -> None:
        text = "".join(f"ada@example.org {key}\n" for key in keys)
        (self.signers / ALLOWED).write_text(text)

    @property
    def trees(self) -> Trees:
        return Trees(self.folder / "releases", Signers(self.signers), self.machine)

    def receive(self, sent: Release, *, without: tuple[bytes, ...] = ()) -> Trees:
        """Put a release's manifest and objects where they arrive."""
        trees = self.trees
        trees.put_manifest(sent.content, sent.signature)
        for wanted, content in sent.objects.items():
            if content not in without:
                with trees.objects.open_partial(wanted.sha256) as file:
                    file.write(content)
                trees.objects.finish(wanted)
        return trees
