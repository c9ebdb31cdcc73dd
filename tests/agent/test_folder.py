"""Who may read the files of an identity, and what root writes."""

import grp
import os
import stat
import subprocess
import sys

import pytest

from dorad.agent import folder as agent_folder
from tests.harness.process import readable_by_others

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not readable_by_others(agent_folder.__file__),
    reason="needs root, and a tree that every user may read",
)

WRITE = """
import sys
from pathlib import Path
from dorad.agent import folder, identitystore, keys

path = Path(sys.argv[1])
folder.GROUP = sys.argv[2]
folder.open_folder(path)
identitystore.IdentityStore(path).request("arm1")
"""

OWNER = 12345


def write_as_root(folder, group):
    state = folder / "agent"
    folder.chmod(0o755)
    state.mkdir()
    gid = grp.getgrnam("daemon").gr_gid
    os.chown(state, OWNER, gid)
    state.chmod(0o750)
    done = subprocess.run(
        [sys.executable, "-c", WRITE, state, group], capture_output=True, text=True, timeout=30
    )
    return done, state / "pending/key.pem", gid


def test_root_writes_as_the_owner_of_the_folder(folder):
    done, key, gid = write_as_root(folder, "no-such-group")
    assert done.returncode == 0, done.stderr
    found = key.stat()
    assert (found.st_uid, found.st_gid) == (OWNER, gid)
    assert stat.S_IMODE(found.st_mode) == 0o600


def test_only_the_group_of_dorad_may_read_the_key(folder):
    done, key, _ = write_as_root(folder, "daemon")
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(key.stat().st_mode) == 0o640


def test_a_link_in_the_folder_does_not_lead_root_astray(folder):
    done, key, _ = write_as_root(folder, "daemon")
    assert done.returncode == 0, done.stderr
    key.unlink()
    key.parent.rmdir()
    # What the agent's user, once it is hostile, could do.
    key.parent.symlink_to(folder)
    done = subprocess.run(
        [sys.executable, "-c", WRITE, folder / "agent", "daemon"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode != 0
    assert "PermissionError" in done.stderr
    assert not (folder / "key.pem").exists()
