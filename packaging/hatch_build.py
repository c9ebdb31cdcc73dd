"""Put the C part of the data plane, and libdora_node, into the wheel, where a compiler is."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TARGET = "dorad/shm/native/_native.abi3.so"
LIBRARY = "dorad/libdora"
"""Where `dora cflags` finds headers and library of nodes in C and C++."""


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
        # One folder for each compiler: an extension for another architecture is not up to date.
        compiler = hashlib.sha256(os.environ.get("CC", "").encode()).hexdigest()[:8]
        made = root / "build/native" / compiler / Path(TARGET).name
        self._compile([*script, "--output", str(made.parent)])
        if made.exists():
            build_data["force_include"][str(made)] = TARGET
            build_data["pure_python"] = False
            libraries = [made, *self._add_library(root, build_data)]
            words = [*script, *(f"--tag={path}" for path in libraries)]
            tag = subprocess.run(words, check=True, capture_output=True, text=True)
            build_data["tag"] = tag.stdout.strip()

    def _add_library(self, root: Path, build_data: dict[str, Any]) -> list[Path]:
        """Add libdora_node, and return it. A wheel has no links: a linker script stands for one."""
        prefix = root / "build/wheel-node"
        script = [sys.executable, str(root / "packaging/nodelib.py"), "--output", str(prefix)]
        self._compile([*script, "--rpath"])
        library = prefix / "lib/libdora_node.so.1"
        if not library.exists():
            return []
        link = prefix / "lib/libdora_node.so"
        link.unlink(missing_ok=True)
        link.write_text(f"INPUT({library.name})\n")
        for folder in ("include", "lib"):
            for path in (prefix / folder).rglob("*"):
                if path.is_file():
                    build_data["force_include"][str(path)] = (
                        f"{LIBRARY}/{path.relative_to(prefix).as_posix()}"
                    )
        return [library]

    def _compile(self, command: list[str]) -> None:
        # What a newer compiler warns of keeps no user from the extension.
        done = subprocess.run([*command, "--", "-Wno-error"], check=False)
        if done.returncode:
            if os.environ.get("DORAD_NATIVE") == "1":
                raise SystemExit(done.returncode)
            self.app.display_warning("the C part does not compile here; the wheel has none")
