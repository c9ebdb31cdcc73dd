"""Files with secrets, which only their owner may use."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from dorad.control.errors import ControlError

if TYPE_CHECKING:
    from pathlib import Path


def check_private(path: Path, *, group_reads: bool = False) -> None:
    """Check that no other user can use the private key in a file, as ssh does.

    With `group_reads` its group may read it.

    Raises:
        ControlError: others can, or the file cannot be examined.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise ControlError("refused", f"{path} cannot be read: {error.strerror}") from None
    wanted = 0o640 if group_reads else 0o600
    if mode & 0o077 & ~wanted:
        raise ControlError(
            "refused",
            f"others may use the private key in {path}: its mode is {mode:04o}",
            f"`chmod {wanted:o} {path}`; replace the key if another user can have read it",
        )
