"""Follow the README and the tutorial on a bare Debian 13, and time it, as root where robots can be:

    python -m hwtests.newcomer [--pages 1,2,6,7,8]

The machine has what `mmdebstrap --variant=minbase` installs, a user who may use sudo, and a clone
of the last commit. Each command is typed there as the pages say, and must print what they show.
Machine time is measured; reading and typing are counted.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hwtests.bench.machine import describe
from hwtests.robots import host, rootfs
from hwtests.robots.reader import Reader
from hwtests.robots.shell import run
from tests.docs.markdown import ROOT, Section, sections

TUTORIAL = ROOT / "docs/tutorial"
USER = "me"
WORDS_A_MINUTE = 200
SIGNS_A_MINUTE = 200
FILE_S = 15.0
"""To copy a file of a page into an editor, and save it."""
FETCH_S = 1800.0
MAKE_KEY = "ssh-keygen -t ed25519"
ENTER = """
set -eu
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --rbind /sys "$1/sys"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/run"
cd "$1"
pivot_root . mnt
umount -l /mnt
cd /home/me/dorad
shift
exec setpriv --reuid=me --regid=me --init-groups env -i "$@" bash
"""
"""Opens a shell on the machine. Its mounts and processes end with it."""


@dataclass
class Step:
    """A part of the way: what the machine took, and what the reader reads and types."""

    name: str
    words: int = 0
    signs: int = 0
    files: int = 0
    machine_s: float = 0.0
    fetching_s: float = 0.0
    """The part of it that apt and pip took to fetch and install."""

    @property
    def reader_s(self) -> float:
        """The time to read, to copy files and to type."""
        by_hand = self.words / WORDS_A_MINUTE + self.signs / SIGNS_A_MINUTE
        return 60 * by_hand + FILE_S * self.files


class Newcomer:
    """Follows pages in a shell of the machine, and keeps a step for each."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._typed: set[str] = set()
        self.steps: list[Step] = []

    def follow(self, page: Path, *, end: str | None = None) -> None:
        """Follow a page from its top to the heading `end`."""
        name = page.relative_to(ROOT).as_posix()
        step = Step(name, words=len(_text(page, end).split()))
        self.steps.append(step)
        for section in sections(page):
            if section.title == end:
                break
            self._follow(section, step)
        print(f"{step.machine_s:7.1f} s  {name}", flush=True)

    def _follow(self, section: Section, step: Step) -> None:
        for line in _lines(section):
            if line not in self._typed and line != "make test":
                self._typed.add(line)
                step.signs += len(line) + 1
                self._time(step, line)
        self._reader.write(section)
        step.files += len(section.files)
        for command in section.sessions:
            step.signs += len(command.line) + 1
            began = time.monotonic()
            self._reader.follow(command)
            self._add(step, command.line, time.monotonic() - began)

    def _time(self, step: Step, line: str) -> None:
        """Type a line of a block without output, and add what it takes."""
        began = time.monotonic()
        # "In the clone of this repository", say the pages.
        clone = f"cd /home/{USER}/dorad"
        if line == "make robots":
            self._reader.enter(f"{clone}; {line}", "`exit` removes the robots.*\n", FETCH_S)
        elif line == "make demo":
            self._run("make .venv/.demo")
            step.fetching_s += time.monotonic() - began
            self._run(line)
        elif line.startswith("make "):
            self._run(f"{clone} && {line}")
        else:
            # The reader's answers: three times Enter.
            self._run(line.replace(MAKE_KEY, f"{MAKE_KEY} -q -N '' -f ~/.ssh/id_ed25519"))
        taken = time.monotonic() - began
        if re.search(r"\b(apt-get|pip) install\b", line):
            step.fetching_s += taken
        self._add(step, line, taken)

    def _run(self, line: str) -> None:
        code, text = self._reader.run(line, FETCH_S)
        assert code == 0, f"`{line}` ended with {code}; it printed:\n{text}"

    def _add(self, step: Step, line: str, seconds: float) -> None:
        step.machine_s += seconds
        print(f"{seconds:7.1f} s  {line}", flush=True)


def _text(page: Path, end: str | None) -> str:
    """Return the text of a page before a heading."""
    return page.read_text(encoding="utf-8").partition(f"\n## {end}\n")[0]


def _lines(section: Section) -> Iterator[str]:
    """Yield the commands of the blocks of a section that show no output."""
    for block in section.blocks:
        if block.language == "sh":
            lines = (line.partition("  #")[0].strip() for line in block.text.splitlines())
            yield from filter(None, lines)


def install(folder: Path) -> None:
    """Install the machine."""
    command = ["mmdebstrap", "--mode=root", "--variant=minbase", "--include=ca-certificates,sudo"]
    sources = [str(rootfs.SOURCES)] if rootfs.SOURCES.is_file() else []
    run([*command, rootfs.RELEASE, str(folder), *sources], timeout=FETCH_S)
    run(["chroot", str(folder), "useradd", "--create-home", "--shell=/bin/bash", USER])
    (folder / "etc/sudoers.d/me").write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\n")
    # The answer to its question; and the network works as it does on this machine.
    (folder / "etc/apt/apt.conf.d/90yes").write_text('APT::Get::Assume-Yes "true";\n')
    places = ["/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt"]
    for name in (*places, *map(str, Path("/etc/apt/apt.conf.d").glob("99*"))):
        if Path(name).exists():
            shutil.copy(name, folder / name[1:])
    home = folder / "home" / USER
    run(["git", "clone", "--quiet", str(ROOT), str(home / "dorad")], timeout=FETCH_S)
    owner = home.stat()
    run(["chown", "-R", f"{owner.st_uid}:{owner.st_gid}", str(home)])
    run(["chroot", str(folder), "apt-get", "-qq", "update"], timeout=FETCH_S)


@contextmanager
def machine() -> Iterator[Path]:
    """Provide a bare machine, and remove it."""
    folder = host.FOLDER / f"newcomer-{os.getpid()}"
    try:
        install(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def shell(folder: Path) -> Reader:
    """Return a reader in a shell of the machine."""
    certificates = {key: value for key, value in os.environ.items() if key.startswith("PIP_CERT")}
    env = {
        "HOME": f"/home/{USER}",
        "USER": USER,
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "LANG": "C.UTF-8",
        **certificates,
    }
    words = [f"{key}={value}" for key, value in env.items()]
    namespaces = ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child"]
    command = [*namespaces, "sh", "-c", ENTER, "sh", str(folder), *words]
    return Reader(command, os.environ, folder / f"home/{USER}/cart")


def table(steps: list[Step]) -> str:
    """Return the steps as a table of Markdown: minutes, and those since the beginning."""
    rows = [
        "| | machine | of it apt and pip | read, copied, typed | since the start |",
        "|---|---:|---:|---:|---:|",
    ]
    since = 0.0
    for step in steps:
        since += step.machine_s + step.reader_s
        fetching = _minutes(step.fetching_s) if step.fetching_s else ""
        machine_s, reader_s = _minutes(step.machine_s), _minutes(step.reader_s)
        rows.append(f"| {step.name} | {machine_s} | {fetching} | {reader_s} | {_minutes(since)} |")
    return "\n".join(rows)


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02}"


def main() -> int:
    """Follow the pages, print a table; return 1 if that is impossible here."""
    parser = argparse.ArgumentParser(prog="python -m hwtests.newcomer", description=__doc__)
    parser.add_argument("--pages", default="1,2,3,4,5,6,7,8", help="pages of the tutorial")
    numbers = parser.parse_args().pages.split(",")
    if reason := host.missing():
        print(reason, file=sys.stderr)
        return 1
    print(describe(), flush=True)
    with machine() as folder, shell(folder) as reader:
        newcomer = Newcomer(reader)
        try:
            newcomer.follow(ROOT / "README.md", end="How it compares")
            newcomer.follow(TUTORIAL / "README.md")
            for page in sorted(TUTORIAL.glob("[1-9]-*.md")):
                if page.name[0] in numbers:
                    newcomer.follow(page)
        finally:
            print(f"\n{table(newcomer.steps)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
