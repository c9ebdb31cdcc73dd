"""`replay`: test nodes against a recording of the dataflow that they belong to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

TIMEOUT_S = 300.0


class ReplayedDifferentlyError(AssertionError):
    """A node has sent something else than the recorded node; the text names the first place."""


def replay(
    *recordings: str | os.PathLike[str],
    live: Sequence[str] = (),
    replace: Mapping[str, str | os.PathLike[str]] | None = None,
    step: bool = True,
    speed: float = 0.0,
    tolerance: float = 0.0,
    ignore: Sequence[str] = (),
    dataflow: str | os.PathLike[str] | None = None,
    timeout: float = TIMEOUT_S,
) -> str:
    """Replay recordings to nodes that run, and check that these send what was recorded.

    `live` names the nodes that run; `replace` gives programs for some, which then run, too. Without
    either, all nodes run but the sources. With `step`, every message is handled before the next one
    is sent; else `speed` is how many times as fast it goes, 0 without waits. Numbers may differ by
    `tolerance`, absolute or relative. `ignore` has patterns of excluded fields: `topic` or
    `topic:path`. `timeout` is in seconds. Return what the nodes have printed.

    Raises:
        ReplayedDifferentlyError: a node has sent something else.
        RuntimeError: the replay could not run, or a node failed.
        TimeoutError: it took too long.
    """
    words = [*(os.fspath(each) for each in recordings), "--assert", "--speed", repr(float(speed))]
    words += ["--step"] if step else []
    words += ["--tolerance", repr(float(tolerance))]
    for pattern in ignore:
        words += ["--ignore", pattern]
    for name in live:
        words += ["--live", name]
    for name, path in (replace or {}).items():
        words += ["--replace", f"{name}={Path(path).absolute()}"]
    if dataflow is not None:
        words += ["--dataflow", os.fspath(dataflow)]
    # The nodes of the replay must not take this process for their dataflow.
    environ = {key: value for key, value in os.environ.items() if key != "DORA_NODE_CONFIG"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dorad.cli", "replay", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environ,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"the replay took more than {timeout:g} s") from error
    if done.returncode == 0:
        return done.stdout
    text = f"{done.stdout}\n{done.stderr}"
    for line in text.splitlines():
        _, actual, place = line.partition("different: ")
        if actual:
            raise ReplayedDifferentlyError(place)
    raise RuntimeError(f"the replay failed:\n{text.strip()}")
