"""Nodes that come from a URL, under a daemon that has no network and a read-only disk."""

import hashlib

from hwtests.robots import Robot
from hwtests.robots.shell import wait_until
from hwtests.systemd import load

NODE = b"#!/bin/sh\nid -un\nwhile sleep 1; do :; done\n"
SHA256 = hashlib.sha256(NODE).hexdigest()
FLOW = f"""\
nodes:
  - id: far
    path: http://127.0.0.1:8000/far.sh
    path_sha256: {SHA256}
"""
CONNECT = "import socket; socket.create_connection(('127.0.0.1', 8000)).close()"
FILE = f"/var/lib/dorad/downloads/{SHA256}/far.sh"


def test_a_node_from_a_url_runs_and_restarts_without_its_server(
    robot: Robot,
) -> None:
    robot.exec("systemctl", "enable", "--now", "dorad")
    load.install(robot, FLOW)
    robot.write("/srv/www/far.sh", NODE)
    server = "python3 -m http.server 8000 --bind 127.0.0.1 --directory /srv/www"
    robot.exec("systemd-run", "--unit=www", *server.split())
    connected = ("python3", "-c", CONNECT)
    wait_until(lambda: robot.attempt(*connected).returncode == 0, "the server is there")
    flow = ("dora", "start", f"{load.FOLDER}/load.yml", "--name", "load", "--detach")
    robot.exec(*flow)
    wait_until(lambda: "dorad-node" in robot.exec("dora", "logs", "load"), "the node runs")
    assert robot.exec("stat", "-c", "%a %U", FILE).split() == ["755", "root"]

    robot.exec("systemctl", "stop", "www")
    robot.exec("dora", "stop", "load")
    robot.exec("systemctl", "restart", "dorad")
    robot.exec(*flow)
    running = ("pgrep", "-u", "dorad-node", "-f", FILE)
    wait_until(lambda: robot.attempt(*running).returncode == 0, "it runs without the server")
