"""`dorafleet plan`, `rollout` and `drift`: what people and scripts see, and the exit codes."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE
from contextlib import asynccontextmanager

import pytest

from dorad.release.manifest import encode
from dorafleet.cli.main import run_command
from dorafleet.coordinator.token import make_token
from dorafleet.release.store import Store
from tests.fleet.control.serving import DEADLINE_S, leading, with_commands
from tests.release.samples import sign

from .site import ID1, ID2, ONE, TWO, Site, machines

FAST = (
    *("--min-healthy-time", "0.1", "--healthy-deadline", "60s", "--progress-deadline", "60s"),
    *("--soak-time", "0s"),
)


class CommandSite(Site):
    """A site with commands. Releases are in the operator's store, not registered yet."""

    def __init__(self, fleet, folder, capsys):
        super().__init__(fleet)
        self.folder = folder
        self.store = folder / "releases"
        self._capsys = capsys
        for each in (ONE, TWO):
            Store(self.store).add(encode(each), sign(encode(each)))

    async def run(self, *words):
        """Run a command; return its exit code, and what it prints."""
        where = ["--state", str(self.folder), "--port", str(self.fleet.port)]
        code = await asyncio.to_thread(run_command, [*words, *where])
        out, err = self._capsys.readouterr()
        return code, out, err

    async def release(self, *words):
        return await self.run(*words, "--store", str(self.store))


@asynccontextmanager
async def command_site(folder, capsys, robots=3, labels=None):
    make_token(folder / "token")
    fleet = leading(folder, machines(robots, labels), authenticate=with_commands)
    async with fleet as found:
        one = CommandSite(found, folder, capsys)
        await one.connect(*(machine.id for machine in machines(robots)))
        yield one


async def test_from_a_change_to_its_undo(tmp_path, capsys):
    async with command_site(tmp_path, capsys) as one:
        code, out, err = await one.release("rollout", "start", "pick@1", *FAST)
        assert (code, err) == (0, "")
        assert "rollout 1 has started" in out
        assert "r1: confirmed" in out
        assert "rollout 1  pick@1 on 3 robots  succeeded" in out

        code, out, err = await one.release("plan", "pick")
        assert code == 0, err
        lines = [" ".join(line.split()) for line in out.splitlines()]
        assert "r1 canary pick@1 pick@2 1 replaced, 1 untouched 1 -" in lines
        assert "nodes replaced: grip" in lines
        assert "nodes untouched: camera" in lines

        code, out, _ = await one.release("rollout", "start", "pick", *FAST, "--json")
        assert code == 0
        events = [json.loads(line) for line in out.splitlines()]
        assert events[-1]["event"] == "end"
        assert events[-1]["counts"] == {"confirmed": 3}
        assert {event["event"] for event in events} == {"rollout", "robot", "end"}
        assert set(one.running().values()) == {ID2}
        code, out, _ = await one.run("status")
        assert out.count(f" pick confirmed ({ID2[:12]})") == 3

        code, out, err = await one.release("rollout", "start", "pick", *FAST)
        assert (code, out) == (0, "")
        assert "there is nothing to do: all 3 robots have it already" in err

        code, out, _ = await one.release("rollout", "undo", "--reason", "grip slips")
        assert code == 0, out
        assert "undone by ann" in out
        assert set(one.running().values()) == {ID1}
        code, out, _ = await one.run("rollout", "history")
        assert [line.split()[:3] for line in out.splitlines()[1:]] == [
            ["2", "pick", "pick@2"],
            ["1", "pick", "pick@1"],
        ]
        code, out, _ = await one.run("rollout", "history", "2")
        assert "grip slips" in out
        assert "order back" in out
        code, out, _ = await one.run("rollout", "status", "2", "--json")
        assert code == 1  # it was reverted
        assert json.loads(out)["summary"]["phase"] == "reverted"
        code, out, _ = await one.run("drift")
        assert (code, out) == (0, "3 robots are in the desired state\n")


async def test_a_bad_release_stops_at_the_canary_with_exit_code_1(tmp_path, capsys):
    async with command_site(tmp_path, capsys) as one:
        await one.runs(ID1)
        one.agents["r1"].releases.fate = "reverted"
        code, out, _ = await one.release("rollout", "start", "pick", *FAST)
        assert code == 1
        assert "✗ r1: reverted: node grip failed; node grip: 3 restarts in 20 s" in out
        assert "reverted: the canary failed" in out
        assert set(one.running().values()) == {ID1}
        code, out, err = await one.release("rollout", "start", "pick", "--robots", "r1")
        assert (code, out) == (1, "")
        assert "--retry" in err
        code, out, _ = await one.run("rollout", "status")
        assert code == 1
        assert out.index("r1  ") < out.index("r2  ")
        # A later rollout leaves the robot out, and says so.
        code, out, err = await one.release("rollout", "start", "pick", *FAST)
        assert code == 0, out
        assert err.startswith("left out: r1 (it has failed there: node grip failed")
        assert set(one.running().values()) == {ID1, ID2}


async def test_a_dry_run_and_a_refusal_change_nothing(tmp_path, capsys):
    async with command_site(tmp_path, capsys, labels={"r1": {"zone": "hall"}}) as one:
        code, out, _ = await one.release("rollout", "start", "pick", "--dry-run", "--json")
        assert code == 0
        assert len(json.loads(out)["robots"]) == 3
        for words, hint in (
            (("pik",), "did you mean `pick`"),
            (("pick", "--label", "zone=moon"), "no robot has zone=moon"),
            (("pick", "--budget", "zone=1%"), "could never switch"),
            (("pick", "--canary-label", "zone=moon"), "canary_selector"),
        ):
            code, out, err = await one.release("rollout", "start", *words)
            assert (code, out) == (1, ""), words
            assert hint in err
            assert "Traceback" not in err
        assert not one.control.rollouts.heads
        assert one.agents["r1"].releases.orders == []


async def test_ctrl_c_ends_the_command_and_not_the_rollout(tmp_path, capsys):
    async with command_site(tmp_path, capsys) as one:
        for agent in one.agents.values():
            agent.releases.has_files = False
        words = ["rollout", "start", "pick", *FAST, "--store", str(one.store)]
        words += ["--state", str(tmp_path), "--port", str(one.fleet.port)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dorafleet.cli", *words, stdout=PIPE, stderr=PIPE, cwd=tmp_path
        )
        lines = []
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            while line := (await process.stdout.readline()).decode():
                lines.append(line)
                if " for files: " in line:
                    break
        assert "there is no cluster.yml here: give --cluster" in lines[-1]
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(DEADLINE_S):
            _, err = await process.communicate()
        assert process.returncode == 130
        assert "the rollout continues without this command" in err.decode()
        assert "dorafleet rollout follow 1" in err.decode()
        assert "Traceback" not in err.decode()
        for agent in one.agents.values():
            agent.releases.get_files()
        await one.until(1, "succeeded")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--label", "hall"), "is not KEY=VALUE for --label"),
        (("--budget", "zone"), "is not LABEL=N for --budget"),
        (("--param", "x=1"), "is not NODE/NAME for --param"),
        (("--busy-max", "long"), "is not a duration"),
        (("--busy", "maybe"), "'maybe' is not one of"),
        (("--window", "sometimes"), "is not a window"),
        (("--canary", "-3"), "canary: "),
    ],
)
def test_usage_errors_have_exit_code_2(words, text, capsys, tmp_path):
    code = run_command(["rollout", "start", "pick", *words, "--state", str(tmp_path)])
    assert code == 2
    assert text in capsys.readouterr().err


def test_a_strategy_file_is_checked(capsys, tmp_path):
    file = tmp_path / "night.yml"
    for content, text in (
        ("canari: 1", "night.yml:1:1: canari: unknown key `canari` (did you mean `canary`?)"),
        ("batches: [{limt: 1}]", "night.yml:1:12: batches[0].limt: unknown key `limt`"),
        ("- 1", "night.yml:1:1: must have keys, not a list"),
        ("a: [", "not valid YAML"),
        ("canary: 1\ncanary: 2", "night.yml:2:1: canary: given twice, first in line 1"),
        ("healthy_deadline: soon", ":1:19: healthy_deadline: 'soon' is not a duration"),
        ("windows: 3", "night.yml:1:10: windows: Expected `array`"),
        ("rates: {a.b/c: x}", "night.yml:1:8: rates[...]: Expected `float`"),
        ("rates: {a.b/c: -1}", "night.yml:1:16: rates.a.b/c: -1 is not between 0 and 1e+06"),
        ("windows: [sometimes]", ":1:11: windows[0]: `sometimes` is not a window"),
        ("canary: 1\nmax_parallel: 0%", "night.yml:2:15: max_parallel: 0% of the robots would"),
        (
            "batches:\n  - {selector: {zone: hall}, limit: 0}",
            "night.yml:2:37: batches[0].limit: 0 robots would never switch (leave it out for no",
        ),
        ("min_healthy_time: 700", "night.yml:1:1: healthy_deadline: 300 s end before the 700 s"),
    ):
        file.write_text(content)
        words = ["rollout", "start", "pick", "--strategy", str(file), "--state", str(tmp_path)]
        assert run_command(words) == 1
        assert text in capsys.readouterr().err
    assert run_command([*words[:-3], str(tmp_path / "none.yml")]) == 1
    assert "no such file" in capsys.readouterr().err


async def test_a_strategy_file_and_options_go_together(tmp_path, capsys):
    file = tmp_path / "night.yml"
    file.write_text("canary: 2\nmin_healthy_time: 2m\nhealthy_deadline: 4m\nbusy_max: 1h\n")
    async with command_site(tmp_path, capsys) as one:
        for agent in one.agents.values():
            agent.releases.has_files = False
        code, out, err = await one.release(
            "rollout", "start", "pick", "--strategy", str(file), "--canary", "1", "--detach",
            "--param", "grip/force=2.5", "--json",
        )  # fmt: skip
        assert code == 0, err
        found = json.loads(out)
        assert found["phase"] in ("planned", "canary")
        detail = await one.until_state(found["rollout"], r1="pending", r2="waiting")
        assert detail.strategy.canary == "1"
        assert detail.strategy.busy_max == 3600.0
        assert detail.strategy.rules.min_healthy_time == 120.0
        await one.fleet.until(lambda: one.agents["r1"].releases.orders)
        order = one.agents["r1"].releases.orders[-1]
        assert order.params == {"grip/force": 2.5}
        code, out, _ = await one.run("rollout", "pause", "--reason", "lunch")
        assert code == 0
        assert "paused (canary)" in out
        code, _, err = await one.run("rollout", "pause")
        assert code == 1
        assert "it is paused already" in err
        assert (await one.run("rollout", "resume"))[0] == 0
        code, out, _ = await one.run("rollout", "abort")
        assert (code, "aborted by ann" in out) == (0, True)
        code, _, err = await one.run("rollout", "promote")
        assert code == 1
        assert "it waits for no promotion" in err
        code, _, err = await one.run("rollout", "status", "77")
        assert (code, "there is no rollout 77" in err) == (1, True)
