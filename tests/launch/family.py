"""Processes that are hard to end: `family.py ROLE READY_FILE LOCK_FILE`.

All of them hold a shared lock, which shows whether any is left. A list of processes could miss
those that keep forking.
"""

import fcntl
import os
import signal
import sys

role, ready, lock = sys.argv[1:]
fcntl.flock(os.open(lock, os.O_CREAT | os.O_RDWR), fcntl.LOCK_SH)


def announce() -> None:
    os.close(os.open(ready, os.O_CREAT))


def wait_forever() -> None:
    while True:
        signal.pause()


if role == "plain":
    announce()
elif role == "deaf":
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    announce()
elif role == "stopped":
    announce()
    os.kill(os.getpid(), signal.SIGSTOP)
elif role == "double_fork":
    if os.fork() == 0:
        os.setsid()
        if os.fork() > 0:
            os._exit(0)
        announce()
elif role == "orphan":
    # The leader ends as soon as a daemon has its own session.
    read, write = os.pipe()
    if os.fork() > 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.setsid()
    announce()
    os.close(write)
elif role == "deep":
    for _ in range(8):
        if os.fork() > 0:
            wait_forever()
        os.setpgid(0, 0)
    announce()
elif role == "forking":
    # Every generation is a new process in a new session, and the old one has ended.
    announce()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if os.fork() == 0:
        while True:
            os.setsid()
            if os.fork() > 0:
                os._exit(0)
elif role == "breeding":
    for _ in range(60):
        if os.fork() == 0:
            os.setsid()
            wait_forever()
    announce()
wait_forever()
