"""Print debian/copyright, machine-readable, for our code and each wheel in a site-packages folder.

`copyright.py SITE HOME` reads the metadata in the wheels, so its output always fits the lock files.
HOME is their folder on a system where the package is installed.
"""

from __future__ import annotations

import re
import sys
from email.parser import HeaderParser
from email.utils import parseaddr
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from email.message import Message

LONGEST = 120
"""A longer licence is not quoted; its file in the package is named instead."""

HEAD = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: dorad
Comment: /usr/lib/{home} contains {home} and its dependencies from PyPI, unchanged except
 for the files that packaging/trim.sh removes.

Files: *
Copyright: the dorad authors
License: Apache-2.0
"""

APACHE = """\
License: Apache-2.0
 On Debian systems, the full text of the Apache License 2.0 is in
 /usr/share/common-licenses/Apache-2.0.
"""


def main() -> None:
    """Print debian/copyright."""
    site, home = Path(sys.argv[1]), Path(sys.argv[2])
    print(HEAD.format(home=home.name))
    for folder in sorted(site.glob("*.dist-info")):
        if not folder.name.startswith("dorad-"):
            print(paragraph(folder, f"{home.as_posix().lstrip('/')}/lib/*/site-packages"))
    print(APACHE, end="")


def paragraph(folder: Path, place: str) -> str:
    """Return the paragraph for the project of a .dist-info folder that is installed in `place`."""
    about = HeaderParser().parsestr((folder / "METADATA").read_text())
    name = licence_name(about)
    texts = [path for path in sorted(folder.rglob("*")) if is_licence(path)]
    holders = sorted({line for path in texts for line in copyright_lines(path)}) or [author(about)]
    files = sorted({f"{place}/{part}" for part in parts(folder)})
    lines = ["Files:", *(f" {file}" for file in files)]
    lines += ["Copyright:", *(f" {holder}" for holder in holders)]
    lines += [f"License: {name}"]
    if name != "Apache-2.0":
        # Quote each project's text: licences with the same name differ between projects.
        lines[-1] += f" and {about['Name'].lower()}-notice" if " " in name else ""
        for path in texts:
            lines += quoted(path, place)
        if not texts:
            lines.append(f" {about['Name']} is published under the licence {name}.")
    return "\n".join(lines) + "\n"


def licence_name(about: Message) -> str:
    """Return the licence by its short name, as the project's metadata gives it."""
    given = about["License-Expression"] or about["License"] or ""
    first = given.strip().splitlines()[0] if given.strip() else ""
    if not first or len(first) > 60:
        classifiers = about.get_all("Classifier") or []
        first = next((c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License")), "?")
    short = {"Apache Software License": "Apache-2.0", "Apache License, Version 2.0": "Apache-2.0"}
    first = short.get(first, first).replace("MIT License", "MIT").replace("BSD License", "BSD")
    words = re.sub(r"[(),]", "", first)
    return re.sub(r"\s+AND\s+", " and ", re.sub(r"\s+OR\s+", " or ", words))


def is_licence(path: Path) -> bool:
    """Return True if a file of .dist-info contains a licence or a notice."""
    wanted = re.match(r"(?i)(licen[cs]e|copying|notice|copyright)", path.name)
    return path.is_file() and bool(wanted)


def copyright_lines(path: Path) -> list[str]:
    """Return the copyright holders, each as in the licence file."""
    found = []
    for line in path.read_text(errors="replace").splitlines()[:LONGEST]:
        match = re.match(r"\W*copyright\s+(\(c\)|©|\d{4})\s*(.*)", line, re.IGNORECASE)
        if match:
            year = match[1] if match[1].isdigit() else ""
            found.append(f"{year} {match[2]}".strip().rstrip("."))
    return found


def author(about: Message) -> str:
    """Return the author that the metadata names."""
    return (
        about["Author"] or parseaddr(about["Author-email"] or "")[0] or f"{about['Name']} authors"
    )


def parts(folder: Path) -> list[str]:
    """Return patterns for the files of the project in site-packages."""
    name = folder.name.partition("-")[0]
    top = folder / "top_level.txt"
    modules = top.read_text().split() if top.is_file() else [module_of(folder, name)]
    beside = [f"{name}.libs/*"] if (folder.parent / f"{name}.libs").is_dir() else []
    folders = [f"{m}/*" if (folder.parent / m).is_dir() else f"{m}.*" for m in modules]
    return [*folders, *beside, f"{folder.name}/*"]


def module_of(folder: Path, name: str) -> str:
    """Return the name under which the project is imported."""
    known = {"markdown_it_py": "markdown_it", "pyyaml": "yaml"}
    found = known.get(name.lower(), name.lower())
    if not any(folder.parent.glob(f"{found}*")):
        sys.exit(f"copyright.py: {folder.name}: no module {found} beside it; name it in module_of")
    return found


def quoted(path: Path, site: str) -> list[str]:
    """Return a licence text, indented as the format requires; of a long one only its location."""
    lines = path.read_text(errors="replace").rstrip().splitlines()
    if len(lines) > LONGEST:
        place = path.as_posix().rpartition("/site-packages/")[2]
        return [f" The full text is in {site}/{place}"]
    return [f" {line.rstrip()}" if line.strip() else " ." for line in lines]


if __name__ == "__main__":
    main()
