"""The file with the user's settings: `coordinator:`, the server that commands use by default."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dorad.control.target import COORDINATOR_PORT, TlsFiles

if TYPE_CHECKING:
    from dorad.dataflow.fields import Fields

OF_MACHINE = Path("/etc/dora/config.yml")
"""The settings of users without a file."""

_WHAT = "a file with settings of dora"
_START = "settings start with `coordinator:`"
_BLOCK = "a mapping with `addr`"


class Settings(NamedTuple):
    """The coordinator in the file with settings."""

    address: str | None = None
    port: int = COORDINATOR_PORT
    token: Path | None = None
    tls: TlsFiles | None = None


def settings_path() -> Path | None:
    """Return the file with settings: the user's, else the machine's, None without either."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    own = Path(base, "dora", "config.yml")
    return next((path for path in (own, OF_MACHINE) if path.exists()), None)


def load(path: Path) -> Settings:
    """Read and check a file with settings.

    Raises:
        DataflowError: it has problems, sorted by position.
    """
    from dorad.dataflow.document import read_document
    from dorad.dataflow.errors import DataflowError
    from dorad.dataflow.fields import Fields
    from dorad.dataflow.problems import Problems, in_order
    from dorad.dataflow.text import read_text

    problems = Problems(str(path))
    text = read_text(path, problems, _WHAT)
    root = None if text is None else read_document(text, problems, _START)
    if root is None:
        raise DataflowError(in_order(problems.errors))
    if not isinstance(root.data, dict):
        problems.error(root, f"settings are a mapping, not {root.describe()}", _START)
        raise DataflowError(problems.errors)
    fields = Fields(root, problems)
    block = fields.inside("coordinator", _BLOCK)
    settings = Settings() if block is None else _read_coordinator(block, path.parent)
    fields.finish()
    if block is not None:
        block.finish()
        if settings.tls is None and (block.has("certificate") or block.has("key")):
            named = block.name_of("certificate" if block.has("certificate") else "key")
            problems.error(named, "needs `ca`, the authority that signs the coordinator's")
        if block.has("key") and not block.has("certificate"):
            problems.error(block.name_of("key"), "needs `certificate`, whose key it is")
    if problems.errors:
        raise DataflowError(in_order(problems.errors))
    return settings


def _read_coordinator(block: Fields, folder: Path) -> Settings:
    def path(name: str) -> Path | None:
        text = block.text(name)
        return None if text is None else folder / Path(text).expanduser()

    ca, certificate, key = path("ca"), path("certificate"), path("key")
    return Settings(
        address=block.text("addr"),
        port=block.integer("port", minimum=1, maximum=65535) or COORDINATOR_PORT,
        token=path("token"),
        tls=None if ca is None else TlsFiles(ca, certificate, key),
    )
