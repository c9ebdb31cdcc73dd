"""Put the C part of the data plane into the wheel, where this machine can compile it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TARGET = "dorad/shm/native/_native.abi3.so"


class NativeHook(BuildHookInterface):
    """Compiles by `packaging/native.py`, whose rules for `DORAD_NATIVE` hold here too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; without a result, the wheel is one of pure Python."""
        if os.environ.get("DORAD_NATIVE") == "0":
            return
        root = Path(self.root)
        script = [sys.executable, str(root / "packaging/native.py")]
        if version == "editable":
            # Python loads it from the source tree.
            self._compile(script)
            return
        made = root / "build/native" / Path(TARGET).name
        self._compile([*script, "--output", str(made.parent)])
        if made.exists():
            tag = subprocess.run(
                [*script, "--tag", str(made)], check=True, capture_output=True, text=True
            )
            build_data["force_include"][str(made)] = TARGET
            build_data["pure_python"] = False
            build_data["tag"] = tag.stdout.strip()

    def _compile(self, command: list[str]) -> None:
        # What a newer compiler warns of keeps no user from the extension.
        done = subprocess.run([*command, "--", "-Wno-error"], check=False)
        if done.returncode:
            if os.environ.get("DORAD_NATIVE") == "1":
                raise SystemExit(done.returncode)
            self.app.display_warning("the C part does not compile here; the wheel has none")
