"""A Zenoh router until it is killed: router.py CONFIG, a file in JSON5."""

import signal
import sys

import zenoh

with zenoh.open(zenoh.Config.from_file(sys.argv[1])):
    signal.pause()
