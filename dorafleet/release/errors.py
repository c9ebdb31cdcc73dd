"""The error of a release that cannot be built, found or signed."""

from collections.abc import Iterable

from dorad.problems import ProblemError


class BuildError(ProblemError):
    """What is wrong with the dataflow, the lock, the key or the folder; nothing was kept."""

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        problems: Iterable[object] = (),
        *,
        code: str = "refused",
    ) -> None:
        """`code` is `not-found` for a release that is not there."""
        super().__init__(code, message, hint, problems)
