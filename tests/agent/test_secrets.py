"""The secrets that an agent keeps: sealed on the disk, unsealed for dorad, bounded, forgotten."""

from __future__ import annotations

import stat

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dorad.agent.folder import SYSTEM_DIR
from dorad.agent.secrets import MAX_SECRETS, SecretFiles, unsealed_folder
from dorad.control.messages.agent import SealedSecret
from dorad.control.sealed import Purpose, new_key, public_key, seal
from dorad.dataflow.secrets import MAX_SECRET

ROBOT = "arm1"


@pytest.fixture
def files(tmp_path):
    return SecretFiles(tmp_path / "agent", make(tmp_path / "memory") / "secrets")


def make(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "agent").mkdir(exist_ok=True)
    return folder


def put(files, name, value, version=1, *, robot=ROBOT, key=None, target="*"):
    """Seal a value as a client does, and store it; return what the robot holds then."""
    public = key or files.held(robot).key
    purpose = Purpose(robot, name, version)
    secret = SealedSecret(
        name=name, version=version, target=target, sealed=seal(value, public, purpose)
    )
    return files.change(ROBOT, [secret], [])


def unsealed(tmp_path):
    folder = tmp_path / "memory" / "secrets"
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def versions(held):
    return {name: each.version for name, each in held.held.items()}


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_secret_is_sealed_on_the_disk_and_plain_in_memory_and_no_other_user_reads_either(
    files, tmp_path
):
    held = put(files, "api-key", b"the value")
    assert (versions(held), held.refused) == ({"api-key": 1}, {})
    assert unsealed(tmp_path) == {"api-key": b"the value"}
    agent = tmp_path / "agent" / "secrets"
    assert all(b"the value" not in path.read_bytes() for path in agent.iterdir())
    for folder in (agent, tmp_path / "memory" / "secrets"):
        assert mode(folder) & 0o027 == 0
        assert all(mode(path) & 0o137 == 0 for path in folder.iterdir())
    assert mode(agent / "key") == 0o600


def test_on_a_robot_dorad_finds_them_in_memory():
    assert str(unsealed_folder(SYSTEM_DIR, SYSTEM_DIR / "x")) == "/run/dorad-agent/secrets"


def test_a_value_for_another_robot_key_or_version_is_refused_and_the_one_before_stays(
    files, tmp_path
):
    put(files, "api-key", b"first")
    for wrong in (
        {"robot": "arm2"},
        {"key": public_key(new_key())},
    ):
        held = put(files, "api-key", b"second", 2, **wrong)
        assert "cannot be unsealed" in held.refused["api-key"]
        assert versions(held) == {"api-key": 1}
        assert files.problems == held.refused
    assert unsealed(tmp_path) == {"api-key": b"first"}
    assert versions(put(files, "api-key", b"second", 2)) == {"api-key": 2}
    assert unsealed(tmp_path) == {"api-key": b"second"}


@pytest.mark.long
def test_size_and_number_are_bounded(files, tmp_path):
    for value in (b"", b"x" * (MAX_SECRET + 1)):
        assert "bytes" in put(files, "api-key", value).refused["api-key"]
    public = files.held(ROBOT).key
    for number in range(MAX_SECRETS):
        held = put(files, f"name{number}", b"x", key=public)
    assert held.refused == {}
    held = put(files, "one-more", b"x")
    assert "at most" in held.refused["one-more"]
    assert put(files, "name1", b"another", 2).refused == {}
    assert len(unsealed(tmp_path)) == MAX_SECRETS


def test_after_a_boot_the_values_are_there_again_and_no_others(files, tmp_path):
    put(files, "kept", b"1")
    put(files, "removed", b"2")
    memory = tmp_path / "memory" / "secrets"
    (memory / "kept").unlink()
    (memory / "of-another-time").write_bytes(b"3")
    files.change(ROBOT, [], ["removed", "never-there", "../key"])
    assert unsealed(tmp_path) == {"of-another-time": b"3"}
    assert versions(files.restore(ROBOT)) == {"kept": 1}
    assert unsealed(tmp_path) == {"kept": b"1"}


def test_an_unchanged_value_is_not_written_again_so_that_nodes_do_not_seem_to_have_an_old_one(
    files, tmp_path
):
    put(files, "api-key", b"same")
    before = (tmp_path / "memory" / "secrets" / "api-key").stat()
    put(files, "api-key", b"same", 2)
    files.restore(ROBOT)
    after = (tmp_path / "memory" / "secrets" / "api-key").stat()
    assert (before.st_ino, before.st_ctime_ns) == (after.st_ino, after.st_ctime_ns)


def test_a_damaged_file_is_reported_and_the_running_value_stays(files, tmp_path):
    put(files, "api-key", b"value")
    put(files, "other", b"value")
    (tmp_path / "agent" / "secrets" / "api-key.sealed").write_bytes(b"{")
    held = files.restore(ROBOT)
    assert versions(held) == {"other": 1}
    assert "damaged" in held.refused["api-key"]
    assert unsealed(tmp_path)["api-key"] == b"value"
    assert put(files, "api-key", b"new", 2).refused == {}


def test_a_damaged_key_makes_a_new_one_and_every_secret_has_to_be_set_again(files, tmp_path):
    put(files, "api-key", b"value")
    public = files.held(ROBOT).key
    (tmp_path / "agent" / "secrets" / "key").write_bytes(b"short")
    held = files.held(ROBOT)
    assert held.key not in ("", public)
    assert "cannot be unsealed" in held.refused["api-key"]


def test_a_robot_that_leaves_keeps_nothing(files, tmp_path):
    put(files, "api-key", b"value")
    files.forget()
    assert not (tmp_path / "agent" / "secrets").exists()
    assert unsealed(tmp_path) == {}
    files.forget()


def test_a_folder_that_cannot_be_used_is_a_problem_and_not_the_end(tmp_path):
    make(tmp_path / "memory")
    (tmp_path / "agent" / "secrets").write_text("not a folder")
    files = SecretFiles(tmp_path / "agent", tmp_path / "memory" / "secrets")
    held = files.held(ROBOT)
    assert (held.key, held.held) == ("", {})
    assert "cannot be used" in held.refused[""]
    files.restore(ROBOT)
    assert files.problems


@given(st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_no_content_of_a_file_raises_anything(tmp_path, content):
    make(tmp_path / "memory")
    files = SecretFiles(tmp_path / "agent", tmp_path / "memory" / "secrets")
    files.held(ROBOT)
    (tmp_path / "agent" / "secrets" / "x.sealed").write_bytes(content)
    assert "x" in files.restore(ROBOT).refused


def test_a_file_under_another_name_is_refused(files, tmp_path):
    put(files, "api-key", b"value")
    folder = tmp_path / "agent" / "secrets"
    (folder / "other.sealed").write_bytes((folder / "api-key.sealed").read_bytes())
    assert "other" in files.restore(ROBOT).refused
    assert "other" not in unsealed(tmp_path)


def test_messages_refuse_names_that_are_paths():
    for name in ("../x", ".x", "a/b", "", "x" * 65, "a\n"):
        content = msgspec.json.encode({"name": name, "version": 1, "target": "*", "sealed": ""})
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(content, type=SealedSecret)
