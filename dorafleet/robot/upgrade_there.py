"""Upgrade dorad on the robot where this file runs; revert if the new version is not healthy.

`dorafleet upgrade` copies this file to robots and runs it as root, as its own unit, with the
system's Python: it uses the standard library only, because dorad's own files change under it. It
also runs after a boot in the middle of an upgrade.

    upgrade_there.py upgrade FOLDER NEW.deb PREVIOUS.deb SETTINGS
    upgrade_there.py resume FOLDER

`PREVIOUS.deb` may be empty. FOLDER keeps `current.deb`, `previous.deb` and, during an upgrade, a
journal. The result is in `result.json` there.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

UNIT = Path("/etc/systemd/system/dorad-upgrade-resume.service")
SOCKET = "/run/dorad/control.sock"
AGENT = Path("/var/lib/dorad-agent")
AGENT_FILE = "shares.db"
AGENT_UNIT = "dorad-agent.service"
COMMAND_S = 900.0
"""For apt-get, which waits for other package managers."""
ASK_S = 15.0
POLL_S = 0.5

UNIT_TEXT = """[Unit]
Description=Finish or undo an upgrade of dorad that was interrupted
ConditionPathExists={folder}/journal.json
After=dorad.service

[Service]
Type=oneshot
ExecStart=/usr/bin/python3 -I {folder}/upgrade.py resume {folder}

[Install]
WantedBy=multi-user.target
"""

DEFAULTS = {"min_healthy_time": 30.0, "healthy_deadline": 300.0, "no_way_back": False}


class UpgradeError(Exception):
    """The upgrade cannot be done; nothing has changed."""


class Robot:
    """Runs the programs of the robot."""

    def run(self, *words: str, timeout: float = ASK_S) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; a missing one has exit code 127."""
        environ = os.environ | {
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
            "DORA_SOCKET": SOCKET,
        }
        try:
            return subprocess.run(
                words, capture_output=True, text=True, errors="replace", timeout=timeout,
                env=environ,
            )  # fmt: skip
        except FileNotFoundError:
            return subprocess.CompletedProcess(words, 127, "", f"{words[0]}: not found")
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(words, 124, "", f"{words[0]}: no end in {timeout} s")

    def version(self) -> str:
        """Return the version that is installed; empty for none."""
        done = self.run("dpkg-query", "--show", "--showformat=${Version}", "dorad")
        return done.stdout.strip() if done.returncode == 0 else ""

    def version_of(self, package: Path) -> str:
        """Return the version of a package file; empty if it is not one of dorad."""
        done = self.run("dpkg-deb", "--field", str(package), "Package", "Version")
        fields = dict(line.partition(": ")[::2] for line in done.stdout.splitlines())
        return fields.get("Version", "") if fields.get("Package") == "dorad" else ""

    def install(self, package: Path) -> str:
        """Install a package of any version; return what went wrong, empty for nothing."""
        self.run("dpkg", "--configure", "-a", timeout=COMMAND_S)
        done = self.run(
            *("apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=120"),
            *("-o", "Dpkg::Options::=--force-confold", "--allow-downgrades", "--reinstall"),
            *("install", str(package)),
            timeout=COMMAND_S,
        )
        if done.returncode == 0:
            return ""
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith(("E: ", "dpkg: error"))]
        return "; ".join((errors or lines)[-3:]) or f"apt-get exits with {done.returncode}"

    def nodes(self) -> tuple[dict[str, Any], str]:
        """Return the process and the state of each node, and the problems of the daemon."""
        status = self.run("dora", "status")
        if status.returncode != 0:
            return {}, f"dorad does not answer: {_last(status)}"
        listed = self.run("dora", "node", "list", "--format", "json")
        if listed.returncode != 0:
            return {}, f"`dora node list` fails: {_last(listed)}"
        running = {}
        try:
            for line in listed.stdout.splitlines():
                node = json.loads(line)
                name = f"{node['dataflow']}/{node['node']}"
                running[name] = [node["status"].lower(), node["pid"]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return {}, f"`dora node list` prints something else: {error!r}"
        return running, ""


def upgrade(
    robot: Robot, folder: Path, new: Path, previous: Path | None, settings: dict[str, Any]
) -> dict[str, Any]:
    """Install a package, check its health, and revert if it is not healthy; return the result.

    Raises:
        UpgradeError: nothing was changed, for this reason.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (folder / "journal.json").exists():
        raise UpgradeError("another upgrade is in progress, or was interrupted; see `resume`")
    before, target = robot.version(), robot.version_of(new)
    if not target:
        raise UpgradeError(f"{new.name} is not the package dorad")
    back = _way_back(robot, folder, before, previous)
    if before and back is None and not settings["no_way_back"]:
        raise UpgradeError(
            f"there is no package of the installed version {before} on this robot to go back to; "
            "give it with --previous, or accept that with --no-way-back"
        )
    nodes, _ = robot.nodes()
    if back is not None and back != folder / "previous.deb":
        _copy(back, folder / "previous.deb")
    _copy(new, folder / "new.deb")
    wanted = {name: state for name, state in nodes.items() if state[0] == "running"}
    journal = {
        "before": before, "target": target, "nodes": wanted, "settings": settings,
        "way_back": back is not None, "copies": [each.name for each in _copies()],
    }  # fmt: skip
    _write(folder / "journal.json", journal)
    _keep_after_boot(robot, folder)
    problem = robot.install(folder / "new.deb")
    problem = problem or judge(robot, target, wanted, settings)
    if not problem:
        (folder / "new.deb").replace(folder / "current.deb")
        return _end(robot, folder, {"outcome": "upgraded", "before": before, "version": target})
    return go_back(robot, folder, journal, problem)


def go_back(robot: Robot, folder: Path, journal: dict[str, Any], problem: str) -> dict[str, Any]:
    """Install the previous package again; return the result."""
    result = {"before": journal["before"], "target": journal["target"], "reason": problem}
    if not journal["way_back"]:
        return _end(robot, folder, result | {"outcome": "failed", "version": robot.version()})
    failed = robot.install(folder / "previous.deb")
    _put_back_stores(robot, journal.get("copies", []))
    failed = failed or judge(
        robot, journal["before"], {}, journal["settings"] | {"min_healthy_time": 0}
    )
    if failed:
        why = f"{problem}; and going back failed: {failed}"
        return _end(
            robot, folder, result | {"outcome": "stuck", "reason": why, "version": robot.version()}
        )
    shutil.copyfile(folder / "previous.deb", folder / "current.deb")
    return _end(robot, folder, result | {"outcome": "reverted", "version": journal["before"]})


def _copies() -> list[Path]:
    """Return the copies that versions have made of the agent's file before they converted it."""
    return [each for each in AGENT.glob(f"{AGENT_FILE}.v*") if each.suffix != ".new"]


def _put_back_stores(robot: Robot, before: list[str]) -> None:
    """Put the agent's file as it was in place of one that the new version has converted.

    The previous version does not start with that. `before` are the copies of earlier upgrades.
    """
    made = [each for each in _copies() if each.name not in before]
    if not made:
        return
    robot.run("systemctl", "stop", AGENT_UNIT, timeout=COMMAND_S)
    for name in (f"{AGENT_FILE}-wal", f"{AGENT_FILE}-shm"):
        (AGENT / name).unlink(missing_ok=True)
    # Moved, so that the next upgrade makes a new copy. The oldest, if several were made.
    min(made, key=lambda each: each.stat().st_mtime).replace(AGENT / AGENT_FILE)
    if robot.run("systemctl", "is-enabled", "--quiet", AGENT_UNIT).returncode == 0:
        robot.run("systemctl", "restart", AGENT_UNIT, timeout=COMMAND_S)


def resume(robot: Robot, folder: Path) -> dict[str, Any]:
    """Undo an upgrade that a power cut has interrupted, unless the new version is healthy."""
    try:
        journal = json.loads((folder / "journal.json").read_text())
    except FileNotFoundError:
        return {"outcome": "nothing"}
    problem = robot.install(folder / "new.deb")
    # After a boot only enabled dataflows and those of the fleet run, as other processes.
    problem = problem or judge(robot, journal["target"], {}, journal["settings"])
    if problem:
        return go_back(robot, folder, journal, f"after a boot: {problem}")
    (folder / "new.deb").replace(folder / "current.deb")
    result = {"outcome": "upgraded", "before": journal["before"], "version": journal["target"]}
    return _end(robot, folder, result)


def judge(robot: Robot, version: str, wanted: dict[str, Any], settings: dict[str, Any]) -> str:
    """Wait until dorad and the nodes that ran before are healthy; return the problem.

    Healthy means that for `min_healthy_time` dorad answers and each such node keeps its process.
    """
    end = time.monotonic() + settings["healthy_deadline"]
    since, last, problem = time.monotonic(), None, "it was not asked"
    while time.monotonic() < end:
        nodes, problem = robot.nodes()
        present = {name: nodes.get(name) for name in wanted}
        if not problem and robot.version() != version:
            problem = f"version {robot.version()} is installed, not {version}"
        missing = [name for name, state in present.items() if not state or state[0] != "running"]
        if not problem and missing:
            state = present[missing[0]]
            problem = f"node {missing[0]} is {state[0] if state else 'gone'}"
        if problem or present != last:
            since, last = time.monotonic(), None if problem else present
        if not problem and time.monotonic() - since >= settings["min_healthy_time"]:
            return ""
        time.sleep(POLL_S)
    return problem or f"its nodes were not steady for {settings['min_healthy_time']:g} s"


def _way_back(robot: Robot, folder: Path, before: str, given: Path | None) -> Path | None:
    for package in (given, folder / "current.deb", folder / "previous.deb"):
        if package is not None and package.is_file() and robot.version_of(package) == before:
            return package
    return None


def _keep_after_boot(robot: Robot, folder: Path) -> None:
    shutil.copyfile(__file__, folder / "upgrade.py")
    UNIT.write_text(UNIT_TEXT.format(folder=folder))
    robot.run("systemctl", "enable", UNIT.name)


def _end(robot: Robot, folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    _write(folder / "result.json", result)
    robot.run("systemctl", "disable", UNIT.name)
    UNIT.unlink(missing_ok=True)
    (folder / "new.deb").unlink(missing_ok=True)
    (folder / "journal.json").unlink(missing_ok=True)
    return result


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target.with_suffix(".part"))
    with target.with_suffix(".part").open("rb") as file:
        os.fsync(file.fileno())
    target.with_suffix(".part").replace(target)


def _write(path: Path, content: dict[str, Any]) -> None:
    new = path.with_suffix(".new")
    with new.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    number = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _last(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stdout + done.stderr).strip().splitlines() or ["no reason"]
    return lines[-1].strip()


def main() -> int:
    """Run with the arguments of this process."""
    kind, folder, *rest = sys.argv[1:]
    try:
        if kind == "resume":
            result = resume(Robot(), Path(folder))
        else:
            new, previous, settings = rest
            given = Path(previous) if previous else None
            merged = DEFAULTS | json.loads(settings)
            result = upgrade(Robot(), Path(folder), Path(new), given, merged)
    except UpgradeError as error:
        result = {"outcome": "refused", "reason": str(error)}
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
