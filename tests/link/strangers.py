"""Sockets of strangers at the port of a link, which try to keep its peers out.

Arguments: the address, the port, what they do, how many there are at a time, the files of a
certificate, and the addresses that they come from. Each socket that is closed is replaced, until
the input is closed. Prints "ready" when that many were opened, and at the end how many there were.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import ssl
import sys

PATIENCE_S = 60.0
"""How long a socket is kept, unless the link closes it."""
PAUSE_S = 1.0
"""Before a closed socket is replaced: the attack must not need the processors for itself."""

NOTHING = b""
PARTIAL = bytes.fromhex("16030100fa010000f60303")
"""The first 11 bytes of a ClientHello."""
NONSENSE = b"GET / HTTP/1.0\r\n\r\n"


def client_hello() -> bytes:
    """Return a complete ClientHello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    handshake = tls().wrap_bio(incoming, outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        handshake.do_handshake()
    return outgoing.read()


def tls(certificate: str = "", key: str = "") -> ssl.SSLContext:
    """Return what accepts any server, with a certificate or without one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate, key)
    return context


class Strangers:
    """As many sockets as are wanted, at all times."""

    def __init__(self, host: str, port: int, kind: str, context: ssl.SSLContext | None) -> None:
        self.opened = 0
        self._place = (host, port)
        self._kind = kind
        self._context = context
        self._hello = client_hello()

    async def stay(self, source: str) -> None:
        """Keep one socket open from an address, and open it again when it is closed."""
        while True:
            try:
                reader, writer = await asyncio.open_connection(
                    *self._place, local_addr=(source, 0), ssl=self._context
                )
            except OSError:
                self.opened += 1
                await asyncio.sleep(PAUSE_S)
                continue
            self.opened += 1
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._annoy(reader, writer)
            except OSError:
                await asyncio.sleep(PAUSE_S)
            finally:
                writer.transport.abort()

    async def _annoy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = {"partial": PARTIAL, "nonsense": NONSENSE, "hello": self._hello}
        writer.write(first.get(self._kind, NOTHING))
        if self._kind == "drip":
            for byte in self._hello:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(1)
        while await reader.read(1 << 16):
            pass
        raise OSError("closed")


async def main() -> None:
    """Open the sockets, and keep them open until the input is closed."""
    host, port, kind, count, certificate, key, *sources = sys.argv[1:]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    context = tls(certificate, key) if kind == "tls" else None
    strangers = Strangers(host, int(port), kind, context)
    tasks = [
        asyncio.create_task(strangers.stay(sources[number % len(sources)]))
        for number in range(int(count))
    ]
    async with asyncio.timeout(PATIENCE_S):
        while strangers.opened < int(count):  # noqa: ASYNC110 - a plain number
            await asyncio.sleep(0.01)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    print(strangers.opened, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
