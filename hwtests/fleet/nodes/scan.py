"""Print the TCP ports of a host that accept a connection, one a line: scan.py ADDRESS."""

import socket
import sys

TIMEOUT_S = 5.0

for port in range(1, 1 << 16):
    with socket.socket() as sock:
        # A port that nothing listens at is refused at once.
        sock.settimeout(TIMEOUT_S)
        if sock.connect_ex((sys.argv[1], port)) == 0:
            print(port)
