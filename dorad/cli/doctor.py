"""`dora doctor`: checks of this machine, the daemon and its nodes."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dorad import __version__
from dorad.cli.doctor_ros2 import check_ros2
from dorad.cli.select import connect
from dorad.commandline.files import DataflowFile
from dorad.commandline.tables import print_object
from dorad.natural import natural_item
from dorad.problems import ProblemError
from dorad.realtime.checks import Check, Level, run_checks
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dorad.control.messages import DaemonStatus, DataflowInfo, NodeInfo
    from dorad.dataflow.model import Dataflow

COLOURS = {"PASS": "green", "WARN": "yellow", "FAIL": "red"}
SHARED_MEMORY = Path("/dev/shm")
SERVICE_MEMORY = Path("/run/dorad/shm")
MIN_FREE_SHM = 64 << 20
"""Free bytes in shared memory below which `doctor` warns."""
UV_CHECK_S = 5.0

EPILOG = """\b
Examples:
  dora doctor
  dora doctor --dataflow robot.yml
  dora doctor --rt              what delays real-time nodes here, and how to fix it
  dora doctor --json | jq '.checks[] | select(.level != "PASS")'

Exit code 1 if a check fails; warnings do not count as failures.
"""


@click.command(epilog=EPILOG)
@click.option("--dataflow", "path", type=DataflowFile(), help="Also check this dataflow file.")
@click.option("--rt", is_flag=True, help="Check only how well this machine suits real-time nodes.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def doctor(*, path: Path | None, rt: bool, as_json: bool) -> int:
    """Check this machine, the daemon and its nodes, and suggest how to fix problems."""
    checks = [*check_real_time()] if rt else [*check_machine(), *check_daemon()]
    if path is not None:
        checks += check_file(path)
    failed = [check for check in checks if check.level == "FAIL"]
    if as_json:
        print_object({"ok": not failed, "checks": [asdict(check) for check in checks]})
    else:
        _show(checks)
    return 1 if failed else 0


def _show(checks: Sequence[Check]) -> None:
    for check in checks:
        click.echo(f"  {_coloured(check.level)}  {visible(check.name)}: {visible(check.text)}")
        if check.hint:
            click.echo(f"        {visible(check.hint)}")
    failed = sum(check.level == "FAIL" for check in checks)
    warned = sum(check.level == "WARN" for check in checks)
    warnings = f", {warned} warning{'s' if warned > 1 else ''}" if warned else ""
    click.echo()
    if failed:
        click.echo(f"  {_coloured('FAIL')}  {failed} of {len(checks)} checks failed{warnings}")
    else:
        click.echo(f"  {_coloured('PASS')}  all checks passed{warnings}")


def _coloured(level: Level) -> str:
    return click.style(level, fg=COLOURS[level], bold=True)


def check_machine() -> Iterator[Check]:
    """Check the needs of every dataflow."""
    yield Check("PASS", "dora", __version__)
    yield check_shared_memory(SHARED_MEMORY)
    yield check_native()
    yield check_fences()
    yield check_uv(shutil.which("uv"))
    yield from check_ros2(os.environ)


def check_real_time() -> Iterator[Check]:
    """Check what delays nodes, with the limits of the daemon, or of this process if none runs."""
    from dorad.control.choosing import chosen_daemons
    from dorad.control.client import Client
    from dorad.control.errors import ControlError
    from dorad.realtime.facts import ProcReader

    pid: int | str = "self"
    try:
        with Client(chosen_daemons()) as client:
            pid = client.status().pid
    except ControlError:
        hint = "its limits may differ: start it with `dora up` and check again"
        yield Check("WARN", "daemon", "not running; these are the limits of this shell", hint)
    yield from run_checks(ProcReader().facts(pid))


def check_service_memory(folder: Path) -> Check:
    """Check the file system for the messages of the service, which only it can write to."""
    name = "shared memory of the service"
    if not folder.is_mount():
        text = "it is /dev/shm, which every user of this machine can fill"
        return Check("WARN", name, text, "`systemctl status run-dorad-shm.mount` says why")
    space = os.statvfs(folder)
    free = space.f_bavail * space.f_frsize
    text = f"{folder}, {free / 1e6:.0f} MB free"
    if free < MIN_FREE_SHM:
        return Check("WARN", name, text, "`systemctl edit run-dorad-shm.mount` can enlarge it")
    return Check("PASS", name, text)


def check_shared_memory(folder: Path) -> Check:
    """Check the file system that holds the messages of `dora run` and `dora up`."""
    name = "shared memory"
    try:
        mode = stat.S_IMODE(folder.stat().st_mode)
        space = os.statvfs(folder)
    except OSError as error:
        hint = "mount a tmpfs there: `mount -t tmpfs -o mode=1777 tmpfs /dev/shm`"
        return Check("FAIL", name, f"{folder}: {error.strerror}", hint)
    if not os.access(folder, os.W_OK | os.X_OK):
        return Check("FAIL", name, f"{folder} has mode {mode:o}", f"run `chmod 1777 {folder}`")
    free = space.f_bavail * space.f_frsize
    text = f"{folder} has mode {mode:o}, {free / 1e6:.0f} MB free"
    if free < MIN_FREE_SHM:
        return Check("WARN", name, text, "enlarge it or remove files: large messages need room")
    return Check("PASS", name, text)


def check_native() -> Check:
    """Check whether the data plane's C part is used."""
    name = "data plane"
    try:
        from dorad.shm import native
    except ProblemError as error:
        return Check("FAIL", name, error.message, error.hint)
    if native.module is not None:
        return Check("PASS", name, native.describe())
    fix = "install gcc and python3-dev, then dorad again"
    if os.environ.get(native.VARIABLE) == "0":
        fix = f"unset {native.VARIABLE}"
    return Check("WARN", name, native.describe(), f"messages take several times as long; {fix}")


def check_fences() -> Check:
    """Check that memory fences work: on arm64 they need a library that may be missing."""
    name = "memory fences"
    try:
        from dorad.shm import fence
    except ImportError as error:
        hint = "install it: `sudo apt-get install libatomic1`"
        return Check("FAIL", name, f"{error.name} is missing, so no dataflow can run", hint)
    if fence.STRONG_ORDER:
        return Check("PASS", name, "this processor needs no library")
    return Check("PASS", name, f"{fence.LIBRARY} is installed")


def check_uv(program: str | None) -> Check:
    """Check whether `--uv` can be used."""
    if program is None:
        return Check("WARN", "uv", "not installed", "it is needed for `--uv` only")
    try:
        argv = [program, "--version"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=UV_CHECK_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Check("WARN", "uv", f"{program}: {error}", "it is needed for `--uv` only")
    return Check("PASS", "uv", done.stdout.strip())


BUILDERS = {
    "cmake": "cmake",
    "make": "make",
    "ninja": "ninja-build",
    "meson": "meson",
    "cc": "gcc",
    "gcc": "gcc",
    "c++": "g++",
    "g++": "g++",
    "clang": "clang",
    "clang++": "clang",
    "pkg-config": "pkg-config",
}
"""Programs that build nodes in C and C++, with the Debian packages that have them."""

COMPILERS = ("cc", "gcc", "clang")


def check_builders(dataflow: Dataflow) -> Iterator[Check]:
    """Check that the programs of `build` commands are installed, and a compiler for them."""
    users: dict[str, str] = {}
    for node in dataflow.nodes:
        for line in node.build:
            users.setdefault(Path((line.split() or [""])[0]).name, node.id)
    wanted = {name: node for name, node in users.items() if name in BUILDERS}
    for name, user in wanted.items():
        if shutil.which(name) is None:
            text = f"node {user} is built with `{name}`, which is not installed"
            hint = f"run `sudo apt-get install {BUILDERS[name]}`"
            yield Check("FAIL", "build", text, hint)
    if wanted and not any(map(shutil.which, COMPILERS)):
        text = f"node {next(iter(wanted.values()))} needs a C compiler, and there is none"
        yield Check("FAIL", "build", text, "run `sudo apt-get install g++ libc6-dev`")


def check_daemon() -> Iterator[Check]:
    """Check the daemon, or the coordinator, and everything that runs under it."""
    from dorad.control.errors import ControlError
    from dorad.control.messages import DATAFLOW_LIST, NODE_LIST, Nothing, Ref
    from dorad.daemon.paths import system_paths
    from dorad.launch import landlock
    from dorad.telemetry.feed import STATUS_FILE

    try:
        with connect() as client:
            status = client.status()
            dataflows = client.call(DATAFLOW_LIST, Nothing())
            nodes = client.call(NODE_LIST, Ref())
    except ControlError as error:
        yield Check("FAIL", "daemon", error.message, error.hint)
        return
    if client.server.path is None:
        yield Check("PASS", "coordinator", f"{client.daemon} at {client.server.address}")
        for notice in status.notices:
            yield Check("WARN", "coordinator", notice)
    else:
        yield from judge_daemon(status)
        yield check_socket(client.server.path)
        if client.server.path == system_paths().control:
            yield check_service_memory(SERVICE_MEMORY)
            yield judge_isolation(landlock.version())
            yield from check_telemetry(STATUS_FILE)
        yield from check_disks(client.server.path, Path(status.state).parent)
    yield judge_dataflows(dataflows.dataflows)
    yield from judge_links(dataflows.dataflows)
    yield from judge_nodes(nodes.nodes)
    for machine, reason in sorted((dataflows.missing | nodes.missing).items(), key=natural_item):
        yield Check("WARN", f"machine {machine}", reason, "see `dorafleet doctor`")


def check_telemetry(path: Path) -> Iterator[Check]:
    """Check what the exporter of this machine has lost; nothing if none runs."""
    import msgspec

    from dorad.boundedfile import read_bounded
    from dorad.telemetry.feed import MAX_STATUS, Report

    try:
        reports = msgspec.json.decode(read_bounded(path, MAX_STATUS), type=list[Report])
    except FileNotFoundError:
        return
    except (OSError, ValueError, ProblemError) as error:
        yield Check("WARN", "telemetry", f"{path}: {error}")
        return
    for report in reports:
        text = f"{report.sent} {report.signal} sent to {report.url}, {report.dropped} dropped"
        if report.error:
            hint = "dataflows run on; see `systemctl status dorad-telemetry`"
            yield Check("WARN", "telemetry", f"{text}: {report.error}", hint)
        else:
            yield Check("WARN" if report.dropped else "PASS", "telemetry", text)


def judge_links(dataflows: Sequence[DataflowInfo]) -> Iterator[Check]:
    """Check the links of running dataflows to other machines."""
    for flow in dataflows:
        for machine, peer in flow.links.items():
            name, title = f"link to {machine}", flow.name or flow.uuid
            if peer.state == "up":
                trip = "" if peer.round_trip_us is None else f", {peer.round_trip_us / 1e3:.1f} ms"
                if peer.clock_us is not None:
                    clock, margin = peer.clock_us / 1e3, peer.clock_margin_us / 1e3
                    trip += f"; its clock is {clock:+.1f} ms ahead, \N{PLUS-MINUS SIGN}{margin:.1f}"
                yield Check("PASS", name, f"dataflow {title}{trip}")
            else:
                yield Check("WARN", name, f"dataflow {title}: {peer.reason}")
        if flow.strangers:
            text = f"dataflow {flow.name or flow.uuid}: {flow.strangers}"
            hint = "links go on; if this does not end, let a firewall admit only robots"
            yield Check("WARN", "port of links", text, hint)


def check_socket(path: Path) -> Check:
    """Check who may connect to the daemon."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        return Check("FAIL", "socket", f"{path}: {error.strerror}", "restart the daemon")
    text = f"{path} has mode {mode:o}"
    if mode & 0o007:
        return Check("WARN", "socket", text, "every user of this machine can connect")
    return Check("PASS", "socket", text)


def judge_isolation(version: int) -> Check:
    """Check whether the kernel keeps nodes of one user apart, from its version of Landlock."""
    from dorad.launch.landlock import READING, SIGNALS

    name = "isolation of nodes"
    if version < READING:
        text = "nodes of one dataflow can read each other's memory and variables"
        hint = "that needs Linux 5.19 with Landlock: add `landlock` to `lsm=` of the kernel"
        return Check("WARN", name, text, hint)
    if version < SIGNALS:
        text = "nodes of one dataflow cannot read each other, but kill each other before Linux 6.12"
        return Check("PASS", name, text)
    return Check("PASS", name, "nodes of one dataflow cannot read or kill each other")


def check_disks(socket: Path, state: Path) -> Iterator[Check]:
    """Check the room on the disks that the daemon with this socket and its nodes write to."""
    from dorad.daemon.paths import system_paths
    from dorad.diskspace import low_disks, spaces

    system = system_paths()
    folders = system.written if socket == system.control else (state,)
    low = low_disks(spaces(folders))
    for each in low:
        level: Level = "FAIL" if each.severity == "fail" else "WARN"
        hint = "`dora clean` unlists ended dataflows; see `du -xh --max-depth 2 /var`"
        yield Check(level, "disk", each.text, hint)
    if not low:
        yield Check("PASS", "disk", f"{folders[0]} has room")


def judge_daemon(status: DaemonStatus) -> Iterator[Check]:
    """Check the state of the daemon."""
    text = f"dorad {status.version}, pid {status.pid}"
    if status.version != __version__:
        hint = "restart it with `dora down && dora up`"
        yield Check("WARN", "daemon", f"{text}; this command is {__version__}", hint)
    else:
        yield Check("PASS", "daemon", text)
    if status.problem:
        yield Check("FAIL", "daemon", f"nodes cannot be started: {status.problem}")
    for notice in status.notices:
        yield Check("WARN", "daemon", notice)


def judge_dataflows(dataflows: Iterable[DataflowInfo]) -> Check:
    """Check the list of dataflows."""
    states = [info.status for info in dataflows]
    failed = states.count("failed")
    running = len(states) - failed - states.count("finished")
    text = f"{running} running, {failed} failed, {len(states)} in all"
    if failed:
        return Check(
            "WARN",
            "dataflows",
            text,
            "see `dora logs NAME`; `dora clean` unlists them",
        )
    return Check("PASS", "dataflows", text)


def judge_nodes(nodes: Sequence[NodeInfo]) -> Iterator[Check]:
    """Check the running nodes: a summary, and each unhealthy one."""
    ill = [info for info in nodes if info.status in ("degraded", "restarting", "failed")]
    failed = [info for info in ill if info.status == "failed"]
    level: Level = "FAIL" if failed else "WARN" if ill else "PASS"
    yield Check(level, "nodes", f"{len(nodes)} in all, {len(nodes) - len(ill)} healthy")
    for info in ill:
        where = f"{info.dataflow_name or info.dataflow}/{info.node}"
        why = [info.last_exit] if info.last_exit else []
        if info.broken_inputs:
            why.append(f"no messages on {', '.join(info.broken_inputs)}")
        text = "; ".join([info.status, *why])
        level = "FAIL" if info.status == "failed" else "WARN"
        name = info.dataflow_name or info.dataflow
        yield Check(level, f"node {where}", text, f"see `dora logs {name} --node {info.node}`")


def check_file(path: Path) -> Iterator[Check]:
    """Check a dataflow file."""
    from dorad.cli.validate import missing_programs
    from dorad.commandline.files import load_dataflow
    from dorad.dataflow.errors import DataflowError
    from dorad.dataflow.picture import summary
    from dorad.dataflow.support import unsupported
    from dorad.dataflow.types.strict import all_warnings, type_problems

    try:
        dataflow = load_dataflow(path)
    except DataflowError as error:
        for problem in error.problems:
            yield Check("FAIL", "dataflow", str(problem))
        return
    yield Check("PASS", "dataflow", f"{path}: ok, {summary(dataflow)}")
    unfit = type_problems(dataflow)
    for problem in (*unsupported(dataflow), *unfit):
        yield Check("FAIL", "dataflow", str(problem))
    yield from check_builders(dataflow)
    for problem in (*all_warnings(dataflow), *missing_programs(dataflow, os.environ)):
        if problem not in unfit:
            yield Check("WARN", "dataflow", str(problem))
