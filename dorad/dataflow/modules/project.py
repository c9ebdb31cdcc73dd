"""The folder of a dataflow; modules may not name files outside of it."""

from __future__ import annotations

import os
from pathlib import Path

from dorad.dataflow.errors import TextError
from dorad.dataflow.model import NodeKind, ros2_words
from dorad.phrases import shorten

_WORDS = (NodeKind.DYNAMIC.value, NodeKind.SHELL.value)
"""Values of `path` that are not files."""


class Project:
    """The folder that contains a dataflow's file, its modules and their programs."""

    def __init__(self, folder: Path, shown: Path) -> None:
        self.folder = Path(os.path.realpath(folder))
        """Without symbolic links."""
        self._shown = shown

    def shown(self, file: Path) -> str:
        """Return the path of a file as messages show it, relative like the dataflow's own."""
        return str(self._shown / file.relative_to(self.folder))

    def find_module(self, text: str, folder: Path) -> Path:
        """Return the file that a `module` key names in a file of `folder`, symbolic links resolved.

        Raises TextError if it does not exist or is outside the project.
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
            raise TextError(f"`{self.shown(written)}` is not a file")
        return file

    def rebase(self, text: str, folder: Path) -> str:
        """Return the path of a program in `folder` as the dataflow's own file would write it.

        Only relative paths change: not an absolute one, not one that starts with a variable, and
        not the bare name of a command unless such a file exists. Raises TextError if the path
        leaves the project.
        """
        if text.startswith(("/", "$")) or "\0" in text or ros2_words(text) is not None:
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
        """Return True if links stay in the project; a virtual environment's Python may leave."""
        if Path(os.path.realpath(program)).is_relative_to(self.folder):
            return True
        bin_folder = Path(os.path.realpath(program.parent))
        return (
            bin_folder.is_relative_to(self.folder) and (bin_folder.parent / "pyvenv.cfg").is_file()
        )
