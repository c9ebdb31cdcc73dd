"""Users of dataflows: a dataflow keeps its own, and no user has two dataflows or their files."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dorad.daemon import userpool
from dorad.daemon.recordstore import RecordStore
from dorad.daemon.state import State
from dorad.daemon.userpool import Assignment, UserPool, choose, node_folder, owned_by
from dorad.dataflow.model import NodeSpec
from dorad.launch.model import LaunchError, StateFolder

USERS = ["df01", "df02", "df03"]
NAMES = ["a", "b", "c", "d", "e"]


class Robot(RuleBasedStateMachine):
    """Dataflows start, write files, end, are forgotten and deleted; the state file may get lost."""

    def __init__(self) -> None:
        super().__init__()
        self.assigned: dict[str, Assignment] = {}
        self.known: set[str] = set()
        self.files: dict[str, str] = {}
        """The owner of the files of each dataflow that has any."""
        self.running: dict[str, str] = {}
        self.clock = 0.0

    @rule(name=st.sampled_from(NAMES))
    def start(self, name: str) -> None:
        owners: dict[str, set[str]] = {}
        for flow, user in self.files.items():
            owners.setdefault(user, set()).add(flow)

        def release(each: Assignment) -> bool:
            return each.dataflow not in self.known and each.user not in owners

        before = self.assigned.get(name)
        user = choose(name, USERS, self.assigned.values(), owners, release)
        if user is None:
            assert before is None
            return
        assert before is None or before.user == user
        self.clock += 1
        others = {key: value for key, value in self.assigned.items() if value.user != user}
        self.assigned = {**others, name: Assignment(name, user, self.clock)}
        self.running[name] = user
        self.known.add(name)
        if name in self.files:
            # systemd gives the dataflow's folder to its user.
            self.files[name] = user

    @rule(name=st.sampled_from(NAMES))
    def write(self, name: str) -> None:
        if name in self.running:
            self.files[name] = self.running[name]

    @rule(name=st.sampled_from(NAMES))
    def stop(self, name: str) -> None:
        self.running.pop(name, None)

    @rule(name=st.sampled_from(NAMES))
    def forget(self, name: str) -> None:
        if name not in self.running:
            self.known.discard(name)

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        if name not in self.running:
            self.files.pop(name, None)

    @rule()
    def lose_the_state(self) -> None:
        self.running.clear()
        self.known.clear()
        self.assigned.clear()

    @invariant()
    def no_two_dataflows_have_one_user(self) -> None:
        users = list(self.running.values())
        assert len(set(users)) == len(users)

    @invariant()
    def no_user_of_a_dataflow_owns_files_of_another(self) -> None:
        for name, user in self.running.items():
            assert {flow for flow, owner in self.files.items() if owner == user} <= {name}


TestRobot = pytest.mark.long(Robot.TestCase)


@given(st.permutations([Assignment("a", "df01", 3), Assignment("b", "df02", 1)]))
def test_the_user_that_was_not_used_for_longest_is_taken_back_first(
    assigned: list[Assignment],
) -> None:
    users = ["df01", "df02"]
    assert choose("c", users, assigned, {}, lambda _: True) == "df02"
    assert choose("c", users, assigned, {}, lambda each: each.user == "df01") == "df01"
    assert choose("c", users, assigned, {}, lambda _: False) is None


OWN = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a daemon."""
    made = tmp_path / "lib" / "dorad"
    for name in (userpool.STATE_FOLDER, userpool.RECORDINGS_FOLDER):
        (made / name).mkdir(parents=True)
    return made


def pool(folder: Path, known: set[str], said: list[str]) -> tuple[UserPool, State]:
    state = State(folder / "state.db", said.append)
    made = UserPool(RecordStore(state, said.append), folder, known.__contains__)
    made.load()
    return made, state


def test_a_dataflow_has_its_user_again_after_a_restart(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [entry.pw_name for entry in pwd.getpwall() if entry.pw_uid != os.getuid()][:3]
    monkeypatch.setattr(userpool, "pool_users", lambda: others)
    said: list[str] = []
    first, state = pool(folder, {"a", "b"}, said)
    users = {name: first.assign(name) for name in ("a", "b")}
    assert len(set(users.values())) == 2
    state.close()
    second, state = pool(folder, {"a", "b"}, said)
    assert {name: second.assign(name) for name in ("b", "a")} == users
    assert said == []
    state.close()


def test_a_user_is_free_only_when_nothing_is_left_of_its_dataflow(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(userpool, "pool_users", lambda: [OWN])
    known = {"old"}
    users, state = pool(folder, known, [])
    assert users.assign("old") == OWN
    file = folder / userpool.STATE_FOLDER / "old" / "map"
    file.parent.mkdir()
    file.touch()
    recordings = folder / userpool.RECORDINGS_FOLDER / "old"
    recordings.mkdir()
    with pytest.raises(LaunchError, match="all 1 users for dataflows are in use; `dora clean`"):
        users.assign("new")
    known.clear()
    with pytest.raises(LaunchError, match="deleted or empty"):
        users.assign("new")
    assert file.exists()
    file.unlink()
    assert users.assign("new") == OWN
    assert not file.parent.exists()
    assert not recordings.exists()
    state.close()


def test_without_the_users_of_the_package_a_start_is_refused_with_the_fix(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(userpool, "pool_users", list)
    users, state = pool(folder, set(), [])
    with pytest.raises(LaunchError, match="create them with `systemd-sysusers`"):
        users.assign("a")
    state.close()


def node(*words: str, recorder: bool = False) -> NodeSpec:
    found: NodeSpec = SimpleNamespace(args=" ".join(words), is_recorder=recorder)  # type: ignore[assignment]
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="only folders of root are given away")
def test_only_folders_that_others_cannot_have_made_are_given_to_a_node(folder: Path) -> None:
    assert node_folder(folder, "a", OWN, node()) == StateFolder("dorad/dataflows/a", 0o750)
    base = folder / userpool.RECORDINGS_FOLDER
    recorder = node("--folder", str(base / "a" / "more"), "--keep", "5", recorder=True)
    assert node_folder(folder, "a", OWN, recorder) == StateFolder("dorad/recordings/a", 0o755)
    outside = node("--folder", f"{base}/../../b", recorder=True)
    assert node_folder(folder, "a", OWN, outside) is None
    # A link, a folder of another dataflow, and a parent that others can write.
    (base / "a").symlink_to("/etc")
    assert node_folder(folder, "a", OWN, recorder) is None
    (base / "b").mkdir()
    os.chown(base / "b", 65534, -1)
    foreign = node("--folder", str(base / "b"), recorder=True)
    assert node_folder(folder, "a", OWN, foreign) is None
    assert node_folder(folder, "b", OWN, foreign) == StateFolder("dorad/recordings/b", 0o755)
    (folder / userpool.STATE_FOLDER).chmod(0o777)
    assert node_folder(folder, "a", OWN, node()) is None


def test_a_folder_belongs_to_whom_it_or_the_nearest_above_it_belongs(tmp_path: Path) -> None:
    assert owned_by([tmp_path / "not" / "there"], OWN) == tmp_path
    assert owned_by([Path("/proc")], "nobody") is None
    assert owned_by([tmp_path], "no-such-user") is None
