"""Secrets of a fleet by commands: real daemons, agents, nodes and TLS."""

import io
import json
import sys
from pathlib import Path

import pytest

from tests.fleet.test_enrol import stack as stack
from tests.fleet.tworobots import TwoRobots
from tests.harness.daemon import emptied
from tests.harness.flows import write_flow

pytestmark = pytest.mark.timeout(240)

VALUE = "correct-horse-battery-staple"
NODE = """\
import os
from pathlib import Path
from dora import Node

folder = Path(os.environ["CREDENTIALS_DIRECTORY"])
shown = {path.name: path.read_text() for path in folder.iterdir()}
seen = Path(os.environ["SEEN"])
seen.with_suffix(".new").write_text(repr((str(folder), shown)))
seen.with_suffix(".new").rename(seen)  # whole, or not yet
node = Node()
for event in node:
    pass
"""


class Site(TwoRobots):
    """With a dataflow whose nodes have a secret."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        nodes = [self.node("arm1"), self.node("arm2")]
        self.flow = write_flow(self.folder / "flow", nodes, reader=NODE)

    def node(self, machine: str):
        return {
            "id": f"on-{machine}",
            "path": "reader.py",
            "inputs": {"tick": "dora/timer/secs/60"},
            "secrets": ["api-key"],
            "env": {"SEEN": str(self.seen(machine))},
            "deploy": {"machine": machine},
        }

    def seen(self, machine: str) -> Path:
        return self.folder / f"seen-{machine}"

    def values(self, machine: str):
        """Return the folder and the secrets that a node has seen at its start."""
        return eval(self.seen(machine).read_text())

    def run(self, *words: str, given: str | None = None):
        before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO((given or "").encode()))
        try:
            return self.site.run(*words)
        finally:
            sys.stdin = before

    def set(self, *words: str, value: str = VALUE):
        return self.run("secret", "set", "api-key", *words, given=f"{value}\n")

    def states(self):
        _, out, _ = self.run("secret", "list", "--json")
        listed = [json.loads(line) for line in out.splitlines()]
        return {
            (each["name"], each["target"], robot["robot"]): robot["state"]
            for each in listed
            for robot in each["robots"]
        }


@pytest.fixture
def fleet_site(site, stack, tmp_path, daemons):
    for each in daemons:
        stack.enter_context(emptied(each))
    return Site(site, stack, tmp_path, daemons)


def processes_with(text: str) -> list[str]:
    """Return what in /proc shows a text: arguments and variables of all processes."""
    found = []
    for name in ("environ", "cmdline"):
        for path in Path("/proc").glob(f"[0-9]*/{name}"):
            try:
                content = path.read_bytes()
            except OSError:
                continue  # it has ended, or belongs to another user
            if text.encode() in content:
                found.append(str(path))
    return found


def files_with(text: str, *folders: Path) -> list[str]:
    """Return the files below folders that contain a text."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if text.encode() in path.read_bytes()]


def start(fleet_site):
    for machine in ("arm1", "arm2"):
        fleet_site.seen(machine).unlink(missing_ok=True)
    started = fleet_site.dora("start", str(fleet_site.flow), "--name", "demo", "--detach")
    assert started.returncode == 0, started.stderr
    fleet_site.until(lambda: all(fleet_site.seen(each).exists() for each in ("arm1", "arm2")))


@pytest.mark.long
def test_a_node_without_its_secret_does_not_start_and_the_message_names_what_mends_it(fleet_site):
    assert fleet_site.set("--for", "arm1")[0] == 0
    started = fleet_site.dora("start", str(fleet_site.flow), "--name", "demo", "--detach")
    assert started.returncode == 1
    assert "`arm2`" in started.stderr
    assert "`on-arm2`" in started.stderr
    assert "dorafleet secret set api-key --for" in started.stderr
    assert not fleet_site.seen("arm2").exists()
    code, out, err = fleet_site.set("--for", "zone=lab")
    assert (code, err) == (0, "")
    assert "secret api-key for zone=lab: 1 robot have it" not in out
    assert "secret api-key for zone=lab: 1 robot has it" in out
    start(fleet_site)
    for machine in ("arm1", "arm2"):
        folder, secrets = fleet_site.values(machine)
        assert secrets == {"api-key": VALUE}
        # Of this machine's memory, and of this node alone.
        assert folder.startswith("/dev/shm/")
        assert machine in folder
    fleet_site.dora("stop", "demo")
    fleet_site.until(lambda: not Path(fleet_site.values("arm1")[0]).exists())


@pytest.mark.long
def test_a_new_value_reaches_nodes_at_their_next_start_and_the_command_lists_the_others(fleet_site):
    fleet_site.set("--all")
    start(fleet_site)
    code, out, err = fleet_site.set("--all", value="the second one")
    assert code == 0, err
    assert "arm1: demo/on-arm1, arm2: demo/on-arm2" in err
    _, out, _ = fleet_site.run("secret", "list", "api-key")
    assert "demo/on-arm2" in out
    assert fleet_site.dora("node", "restart", "on-arm1", "-d", "demo").returncode == 0
    fleet_site.until(lambda: fleet_site.values("arm1")[1] == {"api-key": "the second one"})
    assert fleet_site.values("arm2")[1] == {"api-key": VALUE}
    _, out, _ = fleet_site.run("secret", "list", "api-key", "--json")
    (listed,) = map(json.loads, out.splitlines())
    old = {each["robot"]: each["old_nodes"] for each in listed["robots"]}
    assert old == {"arm1": [], "arm2": ["demo/on-arm2"]}
    text = "node on-arm2 runs with the value before of secret api-key"
    # The row of the robot tells it, which comes a second later.
    fleet_site.until(lambda: text in fleet_site.run("doctor", "--json")[1])
    # Without the secret a restart is refused, and ends no process.
    assert fleet_site.run("secret", "remove", "api-key")[0] == 0
    unsealed = fleet_site.daemons[0].paths.runtime / "secrets" / "api-key"
    fleet_site.until(lambda: not unsealed.exists())
    refused = fleet_site.dora("node", "restart", "on-arm1", "-d", "demo")
    assert refused.returncode == 1
    assert "dorafleet secret set api-key" in refused.stderr
    assert Path(fleet_site.values("arm1")[0]).exists()


@pytest.mark.long
def test_the_value_is_in_no_file_of_the_coordinator_and_in_no_process(fleet_site, tmp_path):
    fleet_site.set("--all")
    start(fleet_site)
    backup = tmp_path / "backup"
    backup.mkdir()
    code, _, err = fleet_site.run("backup", str(backup / "store.backup"))
    assert code == 0, err
    assert files_with("api-key", fleet_site.site.state)
    assert files_with(VALUE, fleet_site.site.state, backup) == []
    assert processes_with(VALUE) == []
    code, out, _ = fleet_site.run("audit", "--json")
    assert '"secret.set"' in out
    assert VALUE not in out
    for each in fleet_site.daemons:
        assert files_with(VALUE, each.paths.state) == []
    for machine in fleet_site.machines.values():
        assert files_with(VALUE, machine.folder) == []
    assert files_with(VALUE, fleet_site.flow.parent) == []


@pytest.mark.long
def test_each_robot_gets_the_most_precise_value_and_loses_one_that_it_no_longer_belongs_to(
    fleet_site,
):
    fleet_site.set("--all", value="of all")
    code, _, _ = fleet_site.set("--for", "zone=hall", value="of the hall")
    assert code == 0
    _, _, err = fleet_site.set("--all", value="of all again")
    assert "arm1 keeps the value that was set for zone=hall" in err
    assert fleet_site.states() == {
        ("api-key", "zone=hall", "arm1"): "held",
        ("api-key", "*", "arm2"): "held",
    }
    # Another label: then the value of all counts, which was sealed for this robot as well.
    assert fleet_site.run("labels", "arm1", "zone=yard")[0] == 0
    fleet_site.until(lambda: fleet_site.states().get(("api-key", "*", "arm1")) == "held")
    # A value of the label cannot be sealed for a robot that gets the label later: it is reported.
    assert fleet_site.run("labels", "arm2", "zone=hall")[0] == 0
    fleet_site.until(lambda: ("api-key", "zone=hall", "arm2") in fleet_site.states())
    assert fleet_site.states()["api-key", "zone=hall", "arm2"] == "missing"
    code, out, _ = fleet_site.run("drift", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["robot"], row["what"], row["desired"]) for row in rows] == [
        ("arm2", "secret", "api-key")
    ]
    assert rows[0]["way_back"] == "dorafleet secret set api-key --for arm2"
    assert code == 1
    code, out, _ = fleet_site.run("doctor", "--json")
    (check,) = [each for each in json.loads(out)["checks"] if "api-key" in each["text"]]
    assert (check["level"], check["name"]) == ("FAIL", "arm2")
    assert fleet_site.set("--for", "zone=hall", value="of the hall")[0] == 0
    assert fleet_site.run("drift")[0] == 0
    assert fleet_site.run("secret", "remove", "api-key")[0] == 0
    unsealed = [each.paths.runtime / "secrets" for each in fleet_site.daemons]
    fleet_site.until(lambda: not any(path.name for folder in unsealed for path in folder.iterdir()))
    assert fleet_site.states() == {}


@pytest.mark.long
def test_a_robot_that_is_away_gets_its_secret_when_it_comes_back(fleet_site):
    fleet_site.set("--all")
    machine = fleet_site.machines["arm2"]
    machine.end()
    fleet_site.site.until(
        "status",
        "--json",
        holds=lambda found: [each["state"] for each in found] == ["connected", "unreachable"],
    )
    code, out, _ = fleet_site.set("--all", value="later")
    assert code == 0
    assert "on its way to arm2" in out
    assert fleet_site.states()["api-key", "*", "arm2"] == "waiting"
    machine.agent = None
    machine.systemctl(["enable", "--now", "dorad-agent.service"], b"")
    fleet_site.until(lambda: fleet_site.states()["api-key", "*", "arm2"] == "held")
    unsealed = fleet_site.daemons[1].paths.runtime / "secrets"
    assert (unsealed / "api-key").read_text() == "later"


@pytest.mark.long
def test_a_revoked_robot_has_no_secrets_and_the_store_has_none_for_it(fleet_site):
    fleet_site.set("--all")
    folder = fleet_site.machines["arm2"].folder
    assert list((folder / "secrets").glob("*.sealed"))
    assert fleet_site.run("revoke", "arm2")[0] == 0
    assert list((folder / "secrets").glob("*.sealed")) == []
    assert not (fleet_site.daemons[1].paths.runtime / "secrets" / "api-key").exists()
    assert fleet_site.states()["api-key", "*", "arm2"] == "missing"
    # One that comes again has another key: the value has to be set again.
    code, _, err = fleet_site.run("enrol", str(fleet_site.file), "arm2", "--again")
    assert code == 0, err
    code, out, err = fleet_site.set("--all", value="of both")
    assert code == 0, (out, err)
    fleet_site.until(lambda: fleet_site.states()["api-key", "*", "arm2"] == "held")


@pytest.mark.long
def test_a_value_is_no_argument_and_wrong_words_repeat_no_value(fleet_site):
    for words in (
        ("secret", "set", "api-key", VALUE, "--for", "arm1"),
        ("secret", "set", f"{VALUE} {VALUE}", "--for", "arm1"),
    ):
        code, out, err = fleet_site.run(*words, given="x")
        assert code == 2
        assert f"{VALUE} {VALUE}" not in out + err
    code, _, err = fleet_site.run("secret", "set", "api-key", "--for", "arm3", given="x")
    assert code == 1
    assert "arm3" in err
    code, _, err = fleet_site.run("secret", "set", "api-key", "--for", "zone=moon", given="x")
    assert code == 1
    assert "zone=moon" in err
    code, _, err = fleet_site.run("secret", "set", "api-key", "--for", "arm1", given="")
    assert code == 1
    assert "empty" in err
    code, _, err = fleet_site.run("secret", "set", "api-key", "--all", given="x" * 40_000)
    assert code == 1
    assert "too large" in err
    assert fleet_site.run("secret", "remove", "api-key")[0] == 1
