"""The tutorial's pages about robots, followed from top to bottom in the shell of `make robots`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hwtests.robots.reader import BOOT_S, Reader
from tests.docs.markdown import ROOT, sections

PAGES = sorted((ROOT / "docs/tutorial").glob("[6-9]-*.md"))


def reader(folder: Path, dist: Path) -> Reader:
    """Return a reader with a home of its own, in the shell of `make robots`."""
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    make_key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{home}/.ssh/id_ed25519"]
    subprocess.run(make_key, check=True, timeout=60)
    (home / "cart").mkdir()
    names = ("PATH", "LANG", "LC_ALL", "DORAD_ROBOTS")
    env = {name: os.environ[name] for name in names if name in os.environ}
    env |= {"HOME": str(home), "SHELL": "/bin/sh", "DIST": str(dist)}
    return Reader([sys.executable, "-m", "hwtests.robots", "5"], env, home / "cart")


@pytest.mark.timeout(900)
def test_the_pages_about_robots_work_from_top_to_bottom(deb: Path, tmp_path: Path) -> None:
    with reader(tmp_path, deb.parent) as desk:
        code, text = desk.run(f"cd {desk.folder}", BOOT_S)
        assert code == 0, text
        # OpenSSH reads the home from the database of users, not from HOME.
        home = desk.folder.parent
        for name in ("ssh", "scp"):
            words = f"-i {home}/.ssh/id_ed25519 -o UserKnownHostsFile={home}/.ssh/known_hosts"
            desk.run(f'{name}() {{ command {name} -F /dev/null {words} "$@"; }}')
        for section in (section for page in PAGES for section in sections(page)):
            desk.write(section)
            for command in section.sessions:
                began = time.monotonic()
                desk.follow(command)
                print(f"{time.monotonic() - began:6.1f} s  {command.line}")
