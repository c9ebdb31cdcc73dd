"""Test the trimmed environment of the package dorafleet; a missing part stops the build.

Makes an SSH connection over loopback, which uses asyncssh and all its dependencies.
"""

import asyncio
import importlib
import pkgutil

import asyncssh

import dorafleet


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
