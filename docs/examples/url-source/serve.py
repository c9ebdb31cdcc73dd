"""Serves the folder `served` on port 8731 of this machine while a command runs."""

import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


def main() -> int:
    """Run the command of the command line, and return its exit code."""
    handler = partial(SimpleHTTPRequestHandler, directory="served")
    with ThreadingHTTPServer(("127.0.0.1", 8731), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        code = subprocess.run(sys.argv[1:], check=False).returncode
        server.shutdown()
    return code


if __name__ == "__main__":
    sys.exit(main())
