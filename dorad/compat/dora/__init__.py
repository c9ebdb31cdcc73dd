"""The drop-in `dora` module: nodes written for dora run unmodified.

It is put in front of the module search path of every node, also where the dora-rs wheel is
installed, and then loads the `dorad` package that it is a part of: the node's environment need not
have it installed.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if "dorad" not in sys.modules:
    _package = Path(__file__).resolve().parents[2]
    _spec = importlib.util.spec_from_file_location(
        "dorad", _package / "__init__.py", submodule_search_locations=[str(_package)]
    )
    if _spec is None or _spec.loader is None:
        raise ImportError(f"the dorad package is incomplete at {_package}")
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["dorad"] = _module
    _spec.loader.exec_module(_module)

from dorad import __version__ as __version__
from dorad.node.node import Node as Node
