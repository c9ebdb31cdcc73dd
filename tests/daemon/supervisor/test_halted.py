import os
import signal
import subprocess
import sys
import time

from dorad.procinfo import is_sigstopped

DEADLINE_S = 10.0


def test_a_process_is_halted_from_a_sigstop_to_a_sigcont() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert not is_sigstopped(process.pid)
        for number, sigstopped in ((signal.SIGSTOP, True), (signal.SIGCONT, False)):
            process.send_signal(number)
            deadline = time.monotonic() + DEADLINE_S
            while is_sigstopped(process.pid) is not sigstopped:
                assert time.monotonic() < deadline
        process.kill()
    assert not is_sigstopped(process.pid)


def test_this_process_is_not_halted() -> None:
    assert not is_sigstopped(os.getpid())
