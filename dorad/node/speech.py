"""The short forms of `log`, one for each level."""

from __future__ import annotations

from typing import Any


class Speaking:
    """Something that logs; `log` is what it does with a line."""

    def log(
        self,
        level: str,
        message: str,
        target: str | None = None,
        fields: dict[str, Any] | None = None,
    ) -> None:
        """Log a message at a level; an unknown level counts as info."""
        raise NotImplementedError

    def log_error(self, message: str) -> None:
        """Log at level error."""
        self.log("error", message)

    def log_warn(self, message: str) -> None:
        """Log at level warn."""
        self.log("warn", message)

    def log_info(self, message: str) -> None:
        """Log at level info."""
        self.log("info", message)

    def log_debug(self, message: str) -> None:
        """Log at level debug."""
        self.log("debug", message)

    def log_trace(self, message: str) -> None:
        """Log at level trace."""
        self.log("trace", message)
