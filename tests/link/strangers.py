"""Sockets of strangers at the port of a link, which try to keep its peers out.

Arguments: the address, the port, how many there are at a time, the addresses that they come from as
JSON, and what they do: one of the kinds below, or `tls:CERTIFICATE:KEY`. With several, each socket
takes the next one. Each socket that is closed is replaced, until the input is closed. Prints
"ready" when that many were opened, and at the end how many there were.
"""

import asyncio
import contextlib
import json
import random
import resource
import socket
import ssl
import sys

IP_BIND_ADDRESS_NO_PORT = 24  # not in `socket` before Python 3.12

PATIENCE_S = 60.0
"""How long a socket is kept, unless the link closes it."""
PAUSE_S = 1.0
"""Before a closed socket is replaced: the attack must not need the processors for itself."""

STORM_PAUSE_S = 0.1
"""The same for those that close at once."""
DRIP_S = 1.0
HANDSHAKE = 22
MAX_RECORD = 1 << 14


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


def record(kind: int, content: bytes) -> bytes:
    """Return one TLS record."""
    return bytes([kind, 3, 3]) + len(content).to_bytes(2) + content


def extended(*extensions: tuple[int, bytes]) -> bytes:
    """Return a complete ClientHello with more extensions, in one record."""
    body = client_hello()[9:]
    at = 2 + 32
    for width in (1, 2, 1):  # session, ciphers, compressions
        at += width + int.from_bytes(body[at : at + width])
    more = b"".join(kind.to_bytes(2) + len(text).to_bytes(2) + text for kind, text in extensions)
    old = body[at + 2 :]
    body = body[:at] + (len(old) + len(more)).to_bytes(2) + old + more
    return record(HANDSHAKE, b"\x01" + len(body).to_bytes(3) + body)


def large_hello() -> bytes:
    """Return a ClientHello that fills a record: with 4,000 extensions."""
    room = MAX_RECORD - len(client_hello())
    return extended(*((0x6000 + number, b"") for number in range(room // 4)))


FIRST = {
    "partial": bytes.fromhex("16030100fa010000f60303"),  # of a ClientHello
    "nonsense": b"GET / HTTP/1.0\r\n\r\n",
    "hello": client_hello(),
    "half-closed": client_hello(),
    "slow-record": client_hello() + bytes([HANDSHAKE, 3, 3]) + MAX_RECORD.to_bytes(2),
    "garbage": client_hello(),
    "large": large_hello(),
    "name": extended((0, b"\x00\xff\x00\xff\xff\x00" + b"\xff/../" * 100)),
    "protocols": extended((16, b"\xff\xff" + b"\xffh2\x00" * 100)),
}
"""What is sent first; nothing by other kinds."""


class Strangers:
    """As many sockets as are wanted, at all times."""

    def __init__(self, host: str, port: int) -> None:
        self.opened = 0
        self._place = (host, port)

    async def stay(self, source: str, kind: str, context: ssl.SSLContext | None) -> None:
        """Keep one socket open from an address, and open it again when it is closed."""
        while True:
            try:
                reader, writer = await self._open(source, context)
            except OSError:
                self.opened += 1
                await asyncio.sleep(PAUSE_S)
                continue
            self.opened += 1
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._annoy(kind, reader, writer)
            except OSError:
                await asyncio.sleep(STORM_PAUSE_S if kind == "storm" else PAUSE_S)
            finally:
                writer.transport.abort()

    async def _open(
        self, source: str, context: ssl.SSLContext | None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _ = self._place
        sock = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET)
        try:
            sock.setblocking(False)
            # Its port is taken at the connect: never one that is reserved for a server of tests,
            # which `bind` gives to another address.
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source, 0))
            await asyncio.get_running_loop().sock_connect(sock, self._place)
        except BaseException:
            sock.close()
            raise
        name = None if context is None else host
        return await asyncio.open_connection(sock=sock, ssl=context, server_hostname=name)

    async def _annoy(
        self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(FIRST.get(kind, b""))
        match kind:
            case "storm":
                raise OSError("closes at once")
            case "half-closed":
                writer.write_eof()
            case "drip" | "slow-record":
                for byte in FIRST["hello"]:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(DRIP_S)
            case "records":  # a record for each byte of the greeting
                for byte in FIRST["hello"][5:]:
                    writer.write(record(HANDSHAKE, bytes([byte])))
                    await writer.drain()
                    await asyncio.sleep(DRIP_S)
            case "garbage":  # after the greeting of the other end
                await reader.read(1 << 16)
                for content in (20, 21, HANDSHAKE, 23, 24, 99):
                    writer.write(record(content, random.randbytes(100)))
                    await writer.drain()
        while await reader.read(1 << 16):
            pass
        raise OSError("closed")


async def main() -> None:
    """Open the sockets, and keep them open until the input is closed."""
    host, port, count, addresses, *kinds = sys.argv[1:]
    sources = json.loads(addresses)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    contexts = [tls(*kind.split(":")[1:]) if kind.startswith("tls") else None for kind in kinds]
    strangers = Strangers(host, int(port))
    tasks: list[asyncio.Task[None]] = []
    for number in range(int(count)):
        which = number % len(kinds)
        source = sources[number % len(sources)]
        staying = strangers.stay(source, kinds[which], contexts[which])
        tasks.append(asyncio.create_task(staying))
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
