"""The packages of the Python that runs a node: what a build has changed, and whether nodes start.

A `pip install` may replace numpy by a version that pyarrow cannot use. Every node would then end
with the words of Python's loader, long after the build that is the reason.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from dorad.launch.environment import with_compat
from dorad.phrases import first_of

PROBE_S = 60.0
"""Seconds that a look at the packages may take."""
OLD_PYARROW = "'pyarrow>=17,<19'"
"""Versions that work with numpy 1 and with nodes."""
MAX_NAMED = 8
MAX_ERROR = 300

PROBE = r"""
import importlib.metadata, json, os, re, sys
versions, needs = {}, []
for each in importlib.metadata.distributions():
    name = re.sub(r"[-_.]+", "-", each.metadata["Name"] or "").lower()
    versions[name] = each.version
    for text in each.requires or ():
        if re.match(r"(numpy|pyarrow)\s*[(=<!~]", text) and "extra ==" not in text:
            needs.append([name, text.partition(";")[0].strip()])
error, native = "", ""
try:
    import numpy, pyarrow, pyarrow.lib
    from dorad.shm import native as part
    import dora
    native = part.describe()
except BaseException as raised:
    error = type(raised).__name__ + ": " + (str(raised).strip().splitlines() or [""])[0]
looked = {"versions": versions, "needs": needs, "error": error, "native": native}
with os.fdopen(int(sys.argv[1]), "w") as pipe:
    json.dump(looked, pipe)
"""

_log = logging.getLogger(__name__)


class Packages(msgspec.Struct, frozen=True):
    """What a Python has installed, and whether a node can start with it."""

    versions: dict[str, str]
    needs: list[tuple[str, str]] = []
    """Packages that accept only some versions of numpy or pyarrow, and the words for these."""
    error: str = ""
    """Why a node cannot start; empty if it can."""
    native: str = ""
    """Which data plane its nodes have."""

    @property
    def trouble(self) -> str:
        """Why nodes cannot start; empty if numpy or pyarrow is only not installed."""
        return "" if "No module named" in self.error else self.error


def damage(
    before: Packages | None, after: Packages, *, own: bool = False
) -> tuple[str, str] | None:
    """Return what a build has broken, and what to do about it; None if nodes can start.

    `own` is True if no other node uses this Python.
    """
    native = "native"
    trouble = after.trouble
    if before is not None and not before.error:
        trouble = after.error
        if not trouble and before.native == native != after.native:
            trouble = f"the data plane is no longer {native}: {after.native}"
    if not trouble:
        return None
    was_broken = before is not None and before.trouble != ""
    text = f"nodes cannot start any more: {trouble[:MAX_ERROR]}"
    if was_broken:
        text = f"nodes cannot start, before this command and after it: {trouble[:MAX_ERROR]}"
    changed = [] if before is None else changes(before.versions, after.versions)
    if changed:
        text += f"; the build has changed {first_of(changed, MAX_NAMED)}"
    limits = [f"{name} requires {words}" for name, words in after.needs if name != "pyarrow"]
    if limits:
        text += f"; {first_of(sorted(set(limits)), MAX_NAMED)}"
    return text, _advice(before, after, own=own)


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return how versions differ, one text for each package; numpy and pyarrow come first."""
    names = sorted(before.keys() | after.keys(), key=lambda name: (name not in _BASICS, name))
    return [
        f"{name} from {before.get(name, 'nothing')} to {after.get(name, 'nothing')}"
        for name in names
        if before.get(name) != after.get(name)
    ]


_BASICS = ("numpy", "pyarrow")
_PIP = re.compile(r"(?<![\w.-])pip3?(?![\w.-])")


def _advice(before: Packages | None, after: Packages, *, own: bool) -> str:
    old = {} if before is None or before.trouble else before.versions
    back = [
        f"{name}=={old[name]}"
        for name in _BASICS
        if name in old and after.versions.get(name) != old[name]
    ]
    wanted = " ".join(back) if back else "--force-reinstall pyarrow numpy"
    mended = f"`pip install {wanted}` mends the environment"
    if any(words.startswith("numpy") for _, words in after.needs):
        mended += f"; if the node needs this numpy, let its `build` install {OLD_PYARROW} too"
    return mended if own else f"{mended}; with `--uv` each node has an environment of its own"


def is_install(argv: Sequence[str]) -> bool:
    """Return True if a build command runs pip, or a shell that does."""
    return any(_PIP.search(word) for word in argv)


NOT_TRIED = "No module named numpy or pyarrow was imported"
"""The error of packages that were only listed: whether nodes could start is not known."""


def listed(python: str, home: str | None) -> dict[str, str]:
    """Return the versions of what lies in the package folders of a Python, without running it.

    That costs nothing, and tells whether a command has installed something that does not look like
    it: `make`, or a script, that runs pip.
    """
    prefix = Path(python).parent.parent
    patterns = [(prefix, "lib/python3*/*-packages"), (prefix, "local/lib/python3*/*-packages")]
    if home:
        patterns.append((Path(home), ".local/lib/python3*/site-packages"))
    versions = {}
    for place, pattern in patterns:
        for folder in place.glob(pattern):
            for each in folder.glob("*.dist-info"):
                name, _, version = each.name.removesuffix(".dist-info").partition("-")
                versions[re.sub(r"[-_.]+", "-", name).lower()] = version
    return versions


def before_of(after: Packages, old: Mapping[str, str], new: Mapping[str, str]) -> Packages:
    """Return the packages before a command that has changed what is listed from `old` to `new`."""
    versions = {**after.versions, **old}
    for name in new.keys() - old.keys():
        versions.pop(name, None)
    return Packages(versions, error=NOT_TRIED)


async def read(python: str, env: Mapping[str, str]) -> Packages | None:
    """Look at the packages of a Python; None if there is no such Python yet."""
    if not os.access(python, os.X_OK):
        return None
    reading, writing = os.pipe()
    environ = {**env, "PYTHONPATH": with_compat(env.get("PYTHONPATH"))}
    try:
        process = await asyncio.create_subprocess_exec(
            *(python, "-c", PROBE, str(writing)),
            env=environ,
            pass_fds=(writing,),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        try:
            async with asyncio.timeout(PROBE_S):
                text = await asyncio.to_thread(pipe.read)
                code = await process.wait()
        except TimeoutError:
            return Packages({}, error=f"it does not answer within {PROBE_S:g} s")
        finally:
            with suppress(ProcessLookupError):
                process.kill()
    _log.debug("packages of %s: exit %s, %d bytes", python, code, len(text))
    if not text:
        return Packages({}, error=f"Python ends with status {code} when it imports pyarrow")
    return msgspec.convert(json.loads(text), Packages)
