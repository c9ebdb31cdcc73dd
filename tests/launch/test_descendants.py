"""Finding and ending descendants, without a holder."""

import os
import subprocess
import sys

from dorad.launch import descendants
from tests.harness.waiting import wait_until

from .conftest import Family


def test_children_are_found_with_and_without_the_kernels_list() -> None:
    with subprocess.Popen(["/bin/sleep", "100"]) as child:
        assert child.pid in descendants.children(os.getpid())
        assert child.pid in descendants._children_by_psutil(os.getpid())
        child.kill()


def test_a_holder_that_ends_imports_nothing_for_it() -> None:
    code = """
import os, sys
import dorad.launch.holder.process
from dorad.launch.descendants import end_descendants
before = set(sys.modules)
end_descendants(lambda pid, status: None)
print(*set(sys.modules) - before)
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.split() == []


def test_a_process_that_does_not_exist_has_no_children() -> None:
    assert descendants.children(2**22 + 1) == []
    assert descendants._children_by_psutil(2**22 + 1) == []


def test_spared_processes_keep_their_descendants(family: Family) -> None:
    code = """
import subprocess, sys
import os
from dorad.launch.descendants import children, end_descendants
from dorad.launch.prctl import set_subreaper
set_subreaper(True)
spared = subprocess.Popen(["/bin/sh", "-c", "sleep 100 & echo; wait"], stdout=subprocess.PIPE)
spared.stdout.readline()
doomed = [subprocess.Popen(["/bin/sleep", "100"], start_new_session=True) for _ in range(3)]
reaped = {}
left = end_descendants(reaped.__setitem__, {spared.pid})
assert left == [] and set(reaped) == {child.pid for child in doomed}, (left, reaped)
assert children(os.getpid()) == [spared.pid]
assert len(children(spared.pid)) == 1
end_descendants(reaped.__setitem__)
assert children(os.getpid()) == []
"""
    subprocess.run([sys.executable, "-c", code], env=family.env, check=True, timeout=20)
    wait_until(lambda: not family.alive())
