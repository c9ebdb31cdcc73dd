"""Fork many processes that leave the session of their parent, some of them twice."""

import os
import signal

import checked
from dora import Node

PROCESSES = int(os.environ["FAULTS_PROCESSES"])

node = Node()
for number in range(PROCESSES):
    if os.fork() == 0:
        os.setsid()
        if number % 2 and os.fork() > 0:
            os._exit(0)
        for deaf in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(deaf, signal.SIG_IGN)
        while True:
            signal.pause()
counts = checked.Counts()
counts.values[0] = PROCESSES
counts.write()
for event in node:
    if event["type"] == "STOP":
        break
