"""The folder of a dataflow, out of which nothing that a module names may lead."""

from __future__ import annotations

import os
from pathlib import Path

from dorad.dataflow.document import shorten
from dorad.dataflow.errors import TextError
from dorad.dataflow.model import NodeKind

_WORDS = (NodeKind.DYNAMIC.value, NodeKind.SHELL.value)
"""Paths that name no file."""


class Project:
    """The folder that holds a dataflow's file, its modules and their programs."""

    def __init__(self, folder: Path, shown: Path) -> None:
        self.folder = Path(os.path.realpath(folder))
        """Without symbolic links."""
        self._shown = shown

    def shown(self, file: Path) -> str:
        """A file of the project for people: as the dataflow's own file was named."""
        return str(self._shown / file.relative_to(self.folder))

    def find_module(self, text: str, folder: Path) -> Path:
        """The file that a `module` key means in a file of `folder`, without symbolic links.

        Raises TextError for one that does not exist or is not in the project.
        """
        written = self._inside(text, folder)
        file = Path(os.path.realpath(written))
        if not file.is_relative_to(self.folder):
            raise TextError(
                f"`{shorten(text)}` leaves the directory of the dataflow by a symbolic link",
                "copy the file instead",
            )
        if not file.exists():
            raise TextError(
                f"there is no file `{self.shown(written)}`",
                "the path starts at the folder of this file",
            )
        if not file.is_file():
            raise TextError(f"`{self.shown(written)}` is no file")
        return file

    def rebase(self, text: str, folder: Path) -> str:
        """A program's path as the dataflow's own file would write it, for one in `folder`.

        Only a path that starts at the folder changes: not an absolute one, none that starts with a
        variable, and no bare name of a command, unless there is such a file. Raises TextError for
        one that leaves the project.
        """
        if os.path.isabs(text) or text.startswith("$") or "\0" in text:  # noqa: PTH117
            return text
        if "/" not in text and not text.endswith(".py") and not (folder / text).is_file():
            return text
        written = self._inside(text, folder)
        if not self._stays(written):
            raise TextError(
                f"`{shorten(text)}` leaves the directory of the dataflow by a symbolic link",
                "copy the program, or write its absolute path",
            )
        path = str(written.relative_to(self.folder))
        return f"./{path}" if path in _WORDS else path

    def _inside(self, text: str, folder: Path) -> Path:
        written = Path(os.path.normpath(folder / text))
        if not written.is_relative_to(self.folder):
            raise TextError(
                f"`{shorten(text)}` leaves the directory of the dataflow", "write a relative path"
            )
        return written

    def _stays(self, program: Path) -> bool:
        """Whether links keep it in the project; a virtual environment's Python is always a link."""
        if Path(os.path.realpath(program)).is_relative_to(self.folder):
            return True
        bin_folder = Path(os.path.realpath(program.parent))
        return (
            bin_folder.is_relative_to(self.folder) and (bin_folder.parent / "pyvenv.cfg").is_file()
        )
