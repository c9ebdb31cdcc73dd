"""Templates for continuous integration: steps run, fail where they should, fit the schema."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import asyncssh
import pytest
import yaml

from tests.docs.markdown import ROOT
from tests.fleet.rollout.test_commands import command_site
from tests.harness.commands import fails, succeeds

pytestmark = pytest.mark.examples

TEMPLATES = ROOT / "docs" / "ci-templates"
EXAMPLES = ROOT / "docs" / "examples"
BIN = Path(sys.executable).parent
CALLED = ("validate", "node-tests", "run", "replay", "release", "rollout")


def read(name: str) -> dict:
    """Return a template; YAML 1.1 reads its key `on` as true."""
    found = yaml.safe_load((TEMPLATES / f"{name}.yml").read_text())
    found["on"] = found.pop(True, None)
    return found


def steps(name: str) -> list[dict]:
    """Return the steps of a template."""
    found = read(name)
    if "runs" in found:
        return found["runs"]["steps"]
    return [step for job in found["jobs"].values() for step in job["steps"]]


def commands(name: str) -> list[dict]:
    """Return the steps that run a script."""
    return [step for step in steps(name) if "run" in step]


def environment(step: dict, name: str, given: dict[str, str], folder: Path) -> dict[str, str]:
    """Return what a step's script sees: inputs with their defaults, and secrets."""
    on = read(name).get("on") or {"workflow_call": read(name)}
    inputs = {
        key: str(each.get("default", "")) for key, each in on["workflow_call"]["inputs"].items()
    }
    unknown = given.keys() - inputs.keys() - {"signing-key"}
    assert not unknown
    values = inputs | given
    found = {"PATH": f"{folder / 'bin'}:{BIN}:{os.environ['PATH']}", "RUNNER_TEMP": str(folder)}
    found |= {"GITHUB_RUN_NUMBER": "7"}
    for key, value in step.get("env", {}).items():
        kind, _, word = value.removeprefix("${{").removesuffix("}}").strip().partition(".")
        assert kind in ("inputs", "secrets"), value
        found[key] = values[word]
    return os.environ | found


def skipped(step: dict, name: str, given: dict[str, str]) -> bool:
    """Whether a step's condition, an input that is not empty, is false."""
    if "if" not in step:
        return False
    word, _, value = step["if"].removeprefix("inputs.").partition(" != ")
    assert value == "''", step["if"]
    return not given.get(word, str(read(name)["on"]["workflow_call"]["inputs"][word]["default"]))


def run(name: str, project: Path, **given: str) -> subprocess.CompletedProcess[str]:
    """Run a template's scripts as a runner does; the first that fails ends it."""
    given = {key.replace("_", "-"): value for key, value in given.items()}
    done = subprocess.CompletedProcess("", 0, "", "")
    for step in commands(name):
        if skipped(step, name, given):
            continue
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", step["run"]],
            cwd=project,
            env=environment(step, name, given, project.parent),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            break
    return done


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with a dataflow, nodes, their tests, and a recording."""
    folder = tmp_path / "project"
    shutil.copytree(EXAMPLES / "replay-testing", folder)
    (folder / "recordings").mkdir()
    record = ["dora", "record", "dataflow.yml", "-o", "recordings/drive.mcap"]
    env = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    subprocess.run(
        [*record, "--exit-when-nodes-finish"], cwd=folder, env=env, check=True, capture_output=True
    )
    return folder


def test_a_project_without_a_fault_passes_every_check(project: Path) -> None:
    for name, given in (
        ("validate", {}),
        ("node-tests", {"tests": "."}),
        ("run", {"stop_after": "30s"}),
        ("replay", {"live": "brake"}),
    ):
        succeeds(run(name, project, **given))


def test_each_check_fails_for_its_reason(project: Path) -> None:
    (project / "bad.yml").write_text("nodes:\n  - id: a\n    path: a.py\n    inputz: {}\n")
    fails(run("validate", project, dataflows="dataflow.yml bad.yml"), 1, "bad.yml:4")

    shutil.copy(project / "careless_brake.py", project / "brake.py")
    done = run("replay", project, live="brake")
    assert done.returncode == 1
    assert "different: brake/speed" in done.stdout + done.stderr

    done = run("replay", project, live="brake", recordings="nothing/*.mcap")
    assert (done.returncode, done.stderr) == (1, "no recording fits nothing/*.mcap\n")

    (project / "test_brake.py").write_text("def test_brake():\n    assert False\n")
    assert run("node-tests", project, tests=".").returncode == 1

    (project / "motor.py").write_text("raise SystemExit(3)\n")
    done = run("run", project, stop_after="30s")
    assert done.returncode == 1
    assert "motor" in done.stdout + done.stderr


def test_a_module_of_messages_that_is_not_up_to_date_fails(tmp_path: Path) -> None:
    project = tmp_path / "typed"
    shutil.copytree(EXAMPLES / "typed-messages", project)
    succeeds(run("validate", project, messages="messages.py"))
    messages = project / "messages.py"
    messages.write_text(messages.read_text() + "\nOLD = 1\n")
    done = run("validate", project, messages="messages.py")
    assert done.returncode == 1
    assert "-OLD = 1" in done.stdout


async def test_a_release_of_the_project_is_signed_and_a_rollout_brings_it(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519", comment="ci@example.org")
    done = await asyncio.to_thread(
        run, "release", project, signing_key=key.export_private_key().decode()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "@7" in done.stdout
    (tmp_path / "site").mkdir()
    async with command_site(tmp_path / "site", capsys, robots=2) as one:
        wrapper = tmp_path / "bin" / "dorafleet"
        wrapper.parent.mkdir()
        place = f"--state {tmp_path / 'site'} --port {one.fleet.port}"
        # Its robots have all files; what --upload does has tests of its own.
        drop = 'for word; do shift; [ "$word" = --upload ] || set -- "$@" "$word"; done'
        wrapper.write_text(f'#!/bin/sh\n{drop}\nexec {BIN}/dorafleet "$@" {place}\n')
        wrapper.chmod(0o755)
        given = {"release": "project", "min_healthy_time": "0.1", "soak_time": "0"}
        out = succeeds(await asyncio.to_thread(lambda: run("rollout", project, **given)))
        assert "project@7 on 2 robots  succeeded" in out


def test_values_reach_scripts_only_as_environment_variables() -> None:
    for name in (*CALLED, "action"):
        for step in commands(name):
            assert "${{" not in step["run"], (name, step)


def test_the_example_gives_each_workflow_what_it_requires() -> None:
    for job in read("robot")["jobs"].values():
        name = Path(job["uses"]).stem
        inputs = read(name)["on"]["workflow_call"]["inputs"]
        required = {key for key, each in inputs.items() if each.get("required")}
        assert required <= job["with"].keys() <= inputs.keys(), name


def test_the_files_fit_the_published_schema() -> None:
    for kind, names in (("github-workflows", (*CALLED, "robot")), ("github-actions", ("action",))):
        files = [str(TEMPLATES / f"{name}.yml") for name in names]
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{kind}"]
        succeeds(subprocess.run([*command, *files], capture_output=True, text=True, check=False))
