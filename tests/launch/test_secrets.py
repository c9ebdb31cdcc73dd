"""Secrets of nodes: found in folders, given as files in memory, gone with their process."""

import os
import stat
import sys
from pathlib import Path

import pytest

from dorad.dataflow.secrets import MAX_SECRET
from dorad.launch.holder.client import HolderClient
from dorad.launch.model import Command, LaunchError, RefusedError
from dorad.launch.secrets import CREDENTIALS, CredentialFolders, find_secret, newer_secrets
from dorad.procinfo import start_time


def secret(folder: Path, name: str = "api-key", value: bytes = b"value", mode: int = 0o600) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(value)
    path.chmod(mode)
    return path


def own_holder() -> tuple[int, int]:
    return os.getpid(), start_time(os.getpid()) or 0


def test_the_first_folder_that_has_it_counts(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    path = secret(two)
    assert find_secret("api-key", (one, two)) == path
    path = secret(one)
    assert find_secret("api-key", (one, two)) == path


def test_one_that_is_missing_may_still_come_and_the_message_says_how(tmp_path: Path) -> None:
    with pytest.raises(RefusedError) as error:
        find_secret("api-key", (tmp_path / "one", tmp_path / "two"))
    assert "dorafleet secret set api-key --for" in str(error.value)
    assert str(tmp_path / "two" / "api-key") in str(error.value)


@pytest.mark.parametrize(
    ("value", "mode", "why"),
    [
        (b"x", 0o644, "chmod 600"),
        (b"x", 0o620, "chmod 600"),
        (b"", 0o600, "0 bytes"),
        (b"x" * (MAX_SECRET + 1), 0o600, "bytes"),
    ],
)
def test_one_that_others_may_use_or_of_a_wrong_size_is_refused(
    tmp_path: Path, value: bytes, mode: int, why: str
) -> None:
    secret(tmp_path, value=value, mode=mode)
    with pytest.raises(LaunchError, match=why):
        find_secret("api-key", (tmp_path,))


def test_one_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "api-key", 0o600)
    with pytest.raises(LaunchError, match="not a file"):
        find_secret("api-key", (tmp_path,))


def test_a_value_that_was_replaced_or_removed_is_newer_than_the_process(tmp_path: Path) -> None:
    path = secret(tmp_path)
    later = path.stat().st_ctime + 1
    assert newer_secrets({"api-key": path}, later) == []
    assert newer_secrets({"api-key": path}, later - 2) == ["api-key"]
    assert newer_secrets({"b": None, "a": None}, later) == ["a", "b"]
    path.unlink()
    assert newer_secrets({"api-key": path}, later) == ["api-key"]


def test_a_copy_is_for_the_process_alone_and_ends_with_it(tmp_path: Path) -> None:
    folders = CredentialFolders(own_holder(), tmp_path / "memory")
    source = secret(tmp_path / "store", value=b"x" * MAX_SECRET)
    folder = folders.make("flow/cam/0", {"api-key": source})
    assert (folder / "api-key").read_bytes() == b"x" * MAX_SECRET
    assert stat.S_IMODE(folder.stat().st_mode) == 0o500
    assert stat.S_IMODE((folder / "api-key").stat().st_mode) == 0o400
    assert stat.S_IMODE((tmp_path / "memory").stat().st_mode) == 0o700
    other = folders.make("flow/other/0", {"api-key": source})
    folders.remove("flow/cam/0")
    folders.remove("flow/cam/0")
    assert not folder.exists()
    folders.keep_only(["flow/other/0"])
    assert other.exists()
    folders.keep_only([])
    assert not other.exists()


def test_what_a_killed_holder_has_left_is_removed(tmp_path: Path) -> None:
    source = secret(tmp_path / "store")
    pid, started = own_holder()
    dead = CredentialFolders((pid, started + 1), tmp_path / "memory").make("a/b/0", {"k": source})
    alive = CredentialFolders((pid, started), tmp_path / "memory")
    mine = alive.make("a/c/0", {"k": source})
    assert not dead.exists()
    assert mine.exists()
    alive.close()
    assert list((tmp_path / "memory").iterdir()) == []


def test_a_folder_of_another_user_or_a_link_in_its_place_is_not_used(tmp_path: Path) -> None:
    source = secret(tmp_path / "store")
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name in ("link", "open"):
        with pytest.raises(LaunchError):
            CredentialFolders(own_holder(), tmp_path / name).make("a/b/0", {"k": source})


def test_a_source_that_has_vanished_leaves_no_folder(tmp_path: Path) -> None:
    folders = CredentialFolders(own_holder(), tmp_path / "memory")
    with pytest.raises(RefusedError, match="api-key"):
        folders.make("a/b/0", {"api-key": tmp_path / "gone"})
    assert not list((tmp_path / "memory").glob("*/*"))


def mode_and_owner(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return stat.S_IMODE(found.st_mode), found.st_uid


SHOW = """
import os, sys, time
folder = os.environ["CREDENTIALS_DIRECTORY"]
print(folder, open(f"{folder}/api-key").read(), sorted(os.environ), flush=True)
time.sleep(60)
"""


async def test_a_process_of_a_holder_reads_its_secrets_until_it_ends(tmp_path: Path) -> None:
    source = secret(tmp_path, value=b"correct-horse")
    reading, writing = os.pipe()
    async with HolderClient.start() as holder:
        command = Command(
            (sys.executable, "-c", SHOW), tmp_path, {"A": "b"}, secrets={"api-key": source}
        )
        process = await holder.spawn(command, writing, writing, tag="flow/cam/0")
        os.close(writing)
        with os.fdopen(reading) as pipe:
            name, value, *_ = pipe.readline().split()
        assert value == "correct-horse"
        folder = Path(name)
        assert folder.is_relative_to("/dev/shm")
        assert mode_and_owner(folder) == (0o500, os.getuid())
        process.signal(9)
        await process.wait()
        assert mode_and_owner(folder) is None
        again = await holder.spawn(command, 1, 1, tag="flow/cam/1")
        assert again.exit is None
        assert [path.name for path in folder.parent.iterdir()] == ["flow:cam:1"]
    assert not folder.parent.exists()


async def test_a_command_that_cannot_be_executed_leaves_no_secret(tmp_path: Path) -> None:
    source = secret(tmp_path)
    async with HolderClient.start() as holder:
        command = Command(("/no/such/program",), tmp_path, secrets={"api-key": source})
        with pytest.raises(LaunchError):
            await holder.spawn(command, 1, 1, tag="flow/cam/0")
        own = f"dora-credentials-{os.getuid()}/{holder.pid}.{start_time(holder.pid)}"
        assert list((Path("/dev/shm") / own).iterdir()) == []


def test_a_node_does_not_inherit_the_secrets_of_the_service_that_dora_runs_in() -> None:
    from dorad.launch.environment import layered_environment

    inherited = {CREDENTIALS: "/run/credentials/x", "A": "b"}
    found = layered_environment(inherited, {}, {CREDENTIALS: "/x"}, {})
    assert CREDENTIALS not in found
    assert found["A"] == "b"
