"""Test the trimmed environment of the package dorafleet; a missing part stops the build.

Makes an SSH connection over loopback, which uses asyncssh and all its dependencies; then starts a
coordinator, and asks it over TLS for its state.
"""

import asyncio
import importlib
import pkgutil
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import asyncssh

import dorafleet
from dorad.control.choosing import in_folder
from dorad.control.client import Client
from dorad.control.messages import Nothing
from dorafleet.coordinator.messages import COORDINATOR_STATUS

CLUSTER = "coordinator: {addr: 127.0.0.1}\nmachines: [{id: arm1, host: 127.0.0.1}]\n"


def start_coordinator(folder: Path) -> None:
    """Raise if a coordinator with TLS does not start, or does not answer."""
    file = folder / "cluster.yml"
    file.write_text(CLUSTER)
    command = [sys.executable, "-m", "dorafleet.cli", "serve", str(file), "--tls", "--port", "0"]
    with subprocess.Popen(
        [*command, "--state", str(folder / "state")], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            lines = []
            for line in process.stderr:
                lines.append(line)
                if ready := re.search(r"ready at \S+ port (\d+)", line):
                    break
            else:
                raise AssertionError(f"the coordinator has ended: {''.join(lines)}")
            target = in_folder(folder / "state", int(ready[1]), encrypts=True)
            with Client(target) as client:
                status = client.call(COORDINATOR_STATUS, Nothing())
            assert status.pid == process.pid
        finally:
            process.kill()


async def main() -> None:
    """Raise if a part is missing."""
    for module in pkgutil.walk_packages(dorafleet.__path__, "dorafleet."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    key, host = (asyncssh.generate_private_key(kind) for kind in ("ssh-ed25519", "ssh-rsa"))
    known = asyncssh.import_authorized_keys(key.export_public_key().decode())
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[host],
        authorized_client_keys=known,
        process_factory=lambda process: process.exit(7),
    )
    trusted = ([host.convert_to_public()], [], [])
    async with (
        server,
        asyncssh.connect(
            "127.0.0.1",
            server.get_port(),
            username="robot",
            client_keys=[key],
            known_hosts=trusted,
            config=None,
            agent_path=None,
        ) as connection,
    ):
        done = await connection.run("true")
        assert done.exit_status == 7


asyncio.run(main())
with tempfile.TemporaryDirectory() as name:
    start_coordinator(Path(name))
