"""The version of this tree: its base, the number of commits, and the commit.

`python3 packaging/version.py` writes it to `dorad/_build.py`, which is not in git, and prints it;
with `--debian` as dpkg writes it. Every build does that first: wheels and editable installations
through hatchling, the Debian packages through `deb.sh`, and `make`. A copy of a tree without its
history, such as an sdist, has the file. Without both, the version is the base alone.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

BASE = "0.3.0.dev"
"""Without `.dev` it is that of a release, and the commit is no part of the version."""

UNKNOWN = f"{BASE}0" if BASE.endswith(".dev") else BASE
"""The version of a tree whose commit is not known; the same is in `dorad/__init__.py`."""

ROOT = Path(__file__).resolve().parents[1]
FILE = Path("dorad/_build.py")
_LINE = re.compile(r'^VERSION = "([^"]+)"$', re.MULTILINE)


def from_git(root: Path, base: str = BASE) -> str | None:
    """Return the version of the tree at `root` by its history; None if it has none.

    The number of commits orders versions, as the hash does not. Changes that are not committed add
    a hash of their own, so that no two builds of different sources have one version.
    """
    if not (root / ".git").exists():  # `root` may lie in the repository of another project
        return None
    commit = _git(root, "rev-parse", "--short=9", "HEAD")
    count = _git(root, "rev-list", "--count", "HEAD")
    changes = _git(root, "diff", "HEAD", "--", "dorad", "dorafleet", "packaging", "units")
    if commit is None or count is None or changes is None:
        return None
    if not base.endswith(".dev"):
        return base
    changed = f".d{hashlib.sha256(changes.encode()).hexdigest()[:8]}" if changes else ""
    return f"{base}{count}+g{commit}{changed}"


def from_file(root: Path) -> str | None:
    """Return the version that was written to the tree at `root`; None if none was."""
    try:
        match = _LINE.search((root / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return match[1] if match else None


def version(root: Path = ROOT) -> str:
    """Return the version of the tree at `root`, and write it there for `dorad` and later builds."""
    written = from_file(root)
    known = from_git(root) or written or UNKNOWN
    if known != written:
        text = f'"""Written by packaging/version.py."""\n\nVERSION = "{known}"\n'
        (root / FILE).write_text(text, encoding="utf-8")
    return known


def debian(known: str) -> str:
    """Return a version as dpkg writes it: one of development sorts before its release."""
    return known.replace(".dev", "~dev")


def _git(root: Path, *words: str) -> str | None:
    command = ["git", "-c", "safe.directory=*", "-C", str(root), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return None if done.returncode else done.stdout.strip()


if __name__ == "__main__":
    print(debian(version()) if "--debian" in sys.argv[1:] else version())
