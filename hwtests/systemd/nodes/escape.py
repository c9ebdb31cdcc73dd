"""Fork a process that hides: twice forked, in its own session, ignoring SIGTERM."""

import os
import signal
import time

from dora import Node

node = Node()
if os.fork() == 0:
    os.setsid()
    if os.fork() > 0:
        os._exit(0)
    for deaf in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(deaf, signal.SIG_IGN)
    os.execv("/bin/sleep", ["hidden-from-dora", "100000"])
    time.sleep(1)
for event in node:
    if event["type"] == "STOP":
        break
