"""Print what a port says to a client without a certificate: plain.py ADDRESS PORT.

The client tries TLS 1.3 and then plain text; "answer" stands for any byte that is not of TLS.
"""

import socket
import ssl
import sys

ADDRESS, PORT = sys.argv[1], int(sys.argv[2])
REQUEST = b"GET / HTTP/1.1\r\nHost: robot\r\n\r\n"
TIMEOUT_S = 5.0


def connect() -> socket.socket:
    """Return a connected socket."""
    return socket.create_connection((ADDRESS, PORT), timeout=TIMEOUT_S)


def talk(sock: socket.socket) -> bytes:
    """Return the first bytes of the answer to a request; none if there is no answer."""
    try:
        sock.sendall(REQUEST)
        return sock.recv(200)
    except OSError:
        return b""


context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
try:
    with context.wrap_socket(connect()) as encrypted:
        print("tls", repr(talk(encrypted)))
except OSError as error:
    print("tls failed:", error)
with connect() as sock:
    print("plain", repr(talk(sock)))
