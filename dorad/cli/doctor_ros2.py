"""The checks of `dora doctor` for ROS 2: distributions, Python, middleware, domain."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from dorad.realtime.checks import Check
from dorad.ros2.definitions import PREFIX_PATH, Definitions
from dorad.ros2.environment import DISTRIBUTIONS, Environment, Setup, SetupError, enter

NAME = "ROS 2"
MAX_DOMAIN = 232
LOWEST_PORT, PORTS_PER_DOMAIN = 7400, 250
"""Of DDS: the ports of domain 0, and the distance to those of the next one."""
DEFAULT_RMW = "rmw_fastrtps_cpp"
OLDEST_PYTHON = (3, 11)
_IMPORT_TIMEOUT_S = 60.0
_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_IMPORT = "import pyarrow, rclpy, dorad"


def check_ros2(environ: Mapping[str, str], distributions: Path = DISTRIBUTIONS) -> Iterator[Check]:
    """Check each distribution of ROS 2, and the variables; nothing if there is none."""
    sourced = bool(environ.get(PREFIX_PATH))
    files = sorted(distributions.glob("*/setup.bash"))
    if sourced:
        title = f"{NAME} {environ.get('ROS_DISTRO') or 'in the environment'}"
        yield from check_installation(title, Setup(), environ)
    for file in files:
        # One that is sourced already is checked with all workspaces on top of it.
        if str(file.parent) not in environ.get(PREFIX_PATH, "").split(os.pathsep):
            yield from check_installation(f"{NAME} {file.parent.name}", Setup(file), environ)
    if len(files) > 1 and not sourced:
        names = ", ".join(str(each.parent) for each in files)
        hint = "name one in `setup` of each bridge, or source its setup.bash"
        yield Check("WARN", NAME, f"several distributions: {names}", hint)
    if sourced or files:
        yield check_domain(environ.get("ROS_DOMAIN_ID", ""))


def check_installation(title: str, setup: Setup, environ: Mapping[str, str]) -> Iterator[Check]:
    """Check one installation: whether bridges can run in it, its messages, its middleware."""
    try:
        environment = enter(setup, environ)
    except SetupError as error:
        yield Check("WARN", title, str(error))
        return
    yield check_python(title, environment)
    messages = sum(1 for _ in Definitions.of(environment.variables).names())
    if not messages:
        text = "no type descriptions, so bridges cannot read its messages"
        yield Check("WARN", title, text, "use Jazzy or a later distribution")
    yield check_middleware(title, environment.variables, messages)


def check_python(title: str, environment: Environment) -> Check:
    """Check that bridges, which import dorad and rclpy, can run in the Python of ROS 2."""
    version, python = environment.version, environment.python
    if tuple(map(int, version.split("."))) < OLDEST_PYTHON:
        text = f"Python {version}, and dorad needs {'.'.join(map(str, OLDEST_PYTHON))}"
        return Check("WARN", title, text, "use Jazzy or a later distribution")
    if python == sys.executable:
        return Check("PASS", title, f"Python {version}, that of dora")
    try:
        done = subprocess.run(
            [python, "-c", _IMPORT],
            env=dict(environment.variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_IMPORT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("WARN", title, f"{python} cannot run: {error}")
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        hint = f"`{python} -m pip install dorad` installs what bridges need"
        return Check("WARN", title, f"bridges cannot run in {python}: {last}", hint)
    return Check("PASS", title, f"Python {version}, {python}")


def check_middleware(title: str, variables: Mapping[str, str], messages: int) -> Check:
    """Check that the middleware that the variables choose is installed."""
    chosen = variables.get("RMW_IMPLEMENTATION") or DEFAULT_RMW
    prefixes = [each for each in variables.get(PREFIX_PATH, "").split(os.pathsep) if each]
    index = "share/ament_index/resource_index/rmw_typesupport"
    installed = sorted(
        {
            file.name
            for prefix in prefixes
            for file in Path(prefix, index).glob("rmw_*")
            if file.name != "rmw_implementation"
        }
    )
    text = f"{messages} types of messages, {chosen}"
    if chosen in installed:
        return Check("PASS", title, text)
    package = f"ros-{variables.get('ROS_DISTRO') or 'DISTRO'}-{chosen.replace('_', '-')}"
    there = f"; installed: {', '.join(installed)}" if installed else ""
    hint = f"`sudo apt-get install {package}`, or choose another one with RMW_IMPLEMENTATION"
    return Check("WARN", title, f"{chosen} is not installed{there}", hint)


def check_domain(text: str, port_range: Path = _PORT_RANGE) -> Check:
    """Check ROS_DOMAIN_ID, whose ports may be those that the kernel gives to any program."""
    name = "ROS_DOMAIN_ID"
    number = text.strip() or "0"
    if not (number.isascii() and number.isdecimal()) or int(number) > MAX_DOMAIN:
        return Check("WARN", name, f"{text!r} is not a number from 0 to {MAX_DOMAIN}")
    first = LOWEST_PORT + PORTS_PER_DOMAIN * int(number)
    low, high = map(int, port_range.read_text().split())
    if low <= first <= high:
        text = f"{number}: other programs may have its ports, {first} and above"
        hint = f"use a domain up to {(low - LOWEST_PORT) // PORTS_PER_DOMAIN}"
        return Check("WARN", name, text, hint)
    return Check("PASS", name, number if text.strip() else "0, the default")
