#!/usr/bin/env python3
"""Pin every wheel in the package by version and hash, for each Python and machine.

    python3 packaging/lock.py              # the newest versions that pyproject.toml allows
    python3 packaging/lock.py --keep       # keep the locked versions, look up their hashes again

Writes `requirements.lock` (dependencies of dorad, its agent, its links and its exporter),
`fleet.lock` (additional ones of dorafleet) and `build.lock` (tools that build our own wheel).
Queries the package index through pip, 24 or newer, and installs nothing. Commit the files, then
`make deb`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
PYTHONS = ("3.12", "3.13")
"""Ubuntu 24.04 and Debian 13. To support another one, add it here."""
MACHINES = ("x86_64", "aarch64")
NEWEST_GLIBC = 39
"""Minor version of the oldest glibc 2.x that is supported: Ubuntu 24.04's."""
OLDER_NAMES = ("manylinux1", "manylinux2010", "manylinux2014")
SOURCES_ONLY = ("sdnotify",)
"""Projects without wheels: their source archive is locked, and debian/rules builds it."""

Pins = dict[str, str]
"""Versions by name."""
Found = tuple[str, str, str]
"""Name, version, SHA-256."""


def main() -> None:
    """Write the lock files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="keep the locked versions")
    keep = parser.parse_args().keep
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"]]
    wanted += [each for name in ("agent", "link", "telemetry") for each in extras[name]]
    robots = lock(HERE / "requirements.lock", wanted, keep=keep)
    lock(HERE / "fleet.lock", extras["fleet"], keep=keep, beside=robots)
    lock(HERE / "build.lock", [*project["build-system"]["requires"], "setuptools"], keep=keep)


def lock(path: Path, wanted: list[str], *, keep: bool, beside: Pins | None = None) -> Pins:
    """Resolve `wanted` for every target, write `path`, and return the versions in it.

    The first target decides the versions. Projects in `beside` are pinned to their versions there,
    and left out of the file.
    """
    present = beside or {}
    pins = present | (read_pins(path) if keep and path.is_file() else {})
    hashes: dict[str, set[str]] = defaultdict(set)
    for python in reversed(PYTHONS):
        for machine in MACHINES:
            for name, version, digest in resolve(wanted, pins, python, machine):
                if name not in present:
                    pins.setdefault(name, version)
                    hashes[name].add(digest)
    lines = ["# Written by packaging/lock.py; do not edit."]
    for name in sorted(hashes):
        parts = [f"{name}=={pins[name]}", *(f"--hash=sha256:{d}" for d in sorted(hashes[name]))]
        lines.append(" \\\n    ".join(parts))
    path.write_text("\n".join(lines) + "\n")
    print(f"{path.name}: {len(hashes)} projects")
    return {name: pins[name] for name in hashes}


def read_pins(path: Path) -> Pins:
    """Return the versions of a lock file by name."""
    lines = path.read_text().splitlines()
    return dict(line.split()[0].split("==", 1) for line in lines if "==" in line)


def resolve(wanted: list[str], pins: Pins, python: str, machine: str) -> list[Found]:
    """Return `wanted` and its dependencies for a machine and a Python."""
    sources = [requirement for requirement in wanted if requirement.startswith(SOURCES_ONLY)]
    wheels = [requirement for requirement in wanted if requirement not in sources]
    tag = "cp" + python.replace(".", "")
    target = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    target += [f"--abi={abi}" for abi in (tag, "abi3", "none")]
    target += [f"--platform={platform}" for platform in platforms(machine)]
    found = report([*target, *wheels], pins)
    if sources:
        found += report(["--no-deps", "--no-binary=:all:", *sources], pins)
    return found


def platforms(machine: str) -> list[str]:
    """Return the platform tags that such a machine supports, the most specific first."""
    versioned = [f"manylinux_2_{minor}_{machine}" for minor in range(NEWEST_GLIBC, 4, -1)]
    return versioned + [f"{name}_{machine}" for name in OLDER_NAMES] + [f"linux_{machine}"]


def report(arguments: list[str], pins: Pins) -> list[Found]:
    """Return the projects that pip would install.

    Raises:
        SystemExit: pip fails; with its message.
    """
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
    command += ["--quiet", "--disable-pip-version-check", "--report=-"]
    command += ["--constraint=/dev/stdin", *arguments]
    constraints = "".join(f"{name}=={version}\n" for name, version in pins.items())
    done = subprocess.run(command, input=constraints, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"lock.py: pip finds no solution:\n{done.stderr.strip()}")
    found = []
    for item in json.loads(done.stdout)["install"]:
        name = item["metadata"]["name"].lower().replace("_", "-")
        digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
        found.append((name, item["metadata"]["version"], digest))
    return found


if __name__ == "__main__":
    main()
