"""A Zenoh router until the input is closed. Arguments: the configuration, then changes of it."""

import json
import sys

import zenoh

text, changes = sys.argv[1:]
config = zenoh.Config.from_json5(text)
for key, value in json.loads(changes).items():
    config.insert_json5(key, json.dumps(value))
with zenoh.open(config):
    print("ready", flush=True)
    sys.stdin.read()
