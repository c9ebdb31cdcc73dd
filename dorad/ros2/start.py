"""Become the bridge: enter the ROS 2 environment, and execute its Python in place of this one.

    python -m dorad.ros2.start

The process stays the same, so it is supervised, stopped and confined like any node.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from dorad.ros2.environment import SetupError, choose, enter, use_profile

CONFIG = "DORA_ROS2_BRIDGE_CONFIG"

_log = logging.getLogger(__name__)
_OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
_SHARED = ("dorad", "numpy", "pyarrow")
_CODE = """\
import sys
sys.path += {folders!r}
try:
    import pyarrow, rclpy
    from dorad.ros2.bridge import main
except ImportError as error:
    sys.exit("error: the ROS 2 bridge cannot run in {python}: " + str(error) + {hint!r})
sys.exit(main())
"""


def main() -> None:
    """Execute the bridge; exit with 1 if there is no ROS 2 for it."""
    config = json.loads(os.environ[CONFIG])
    try:
        environment = enter(choose(config["setup"], Path.cwd(), os.environ), os.environ)
    except SetupError as error:
        sys.exit(f"error: {error}")
    variables = dict(environment.variables)
    if config["domain_id"] is not None:
        variables["ROS_DOMAIN_ID"] = str(config["domain_id"])
    if config["transport"] == "zenoh":
        variables["RMW_IMPLEMENTATION"] = "rmw_zenoh_cpp"
        if config["zenoh_config"] is not None:
            variables["ZENOH_SESSION_CONFIG_URI"] = config["zenoh_config"]
    use_profile(variables)
    python = environment.python
    # Compiled packages of ours are of use to the same version only.
    folders = _folders() if environment.version == _OWN else []
    hint = "" if folders else f" (install the wheel of dorad with `{python} -m pip`)"
    code = _CODE.format(folders=folders, python=python, hint=hint)
    _log.debug("the bridge runs in %s", python)
    os.execve(python, [python, "-u", "-c", code], variables)


def _folders() -> list[str]:
    """Return the folders of our packages, for the end of the module search path."""
    places = [spec.origin for name in _SHARED if (spec := find_spec(name)) and spec.origin]
    return list(dict.fromkeys(str(Path(each).parents[1]) for each in places))


if __name__ == "__main__":
    main()
