"""The two ends of a transfer of a release: messages in frames, on the pipes of one process.

The sender opens with `Hello`, then the compressed manifest and its signature. The robot answers
with `Offer` or `Refusal`. The sender then sends each object that is lacking: `Begin`, and pieces of
it from the offset that the robot has; the robot says with `ARRIVED` how much it has taken, and the
sender is never far ahead. After `END` the robot answers with `Received`. The sender may send
`ALIVE` while it has nothing else.

An object may come as a patch: bytes that zstd makes an object of with another one as dictionary.
"""

from __future__ import annotations

import struct
import sys
from typing import Annotated, TypeVar

import msgspec

from dorad.release.errors import Code, ReleaseError
from dorad.release.machine import Machine
from dorad.release.manifest import MAX_MANIFEST, MAX_SIGNATURE, Object, Sha256

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Buffer = bytes | bytearray | memoryview
PROTOCOL = 2
FORMER_PROTOCOL = 1
"""That of the release before, whose manifest is not compressed."""
HEADER = struct.Struct(">BI")
"""Before each frame: its kind, and the number of bytes that follow."""
HELLO, MANIFEST, SIGNATURE, BEGIN, PIECE, END, ALIVE, OFFER, REFUSAL, RECEIVED, ARRIVED = range(
    1, 12
)

PIECE_SIZE = 128 << 10
"""Bytes of an object in one frame, before compression: what a cut may lose."""
MAX_FRAME = 16 << 20
"""Bytes of a frame: an offer of 100,000 objects fits."""
MIN_WINDOW_LOG = 11
MAX_WINDOW_LOG = 27
"""How far back a patch refers, as a power of two: to the begin of what it starts from."""

PATCH_LEVEL = 12
"""Of the compression of patches."""

MAX_PATCHED = 64 << 20
"""Bytes of an object that may come as a patch, and of its base: both are in memory."""
MIN_PATCHED = 4 << 10
"""Bytes of an object, and of what it is made from, below which a patch gains nothing."""
COUNT = struct.Struct(">Q")
"""The payload of `ARRIVED`: bytes of all pieces of this transfer so far, as they were sent."""
ARRIVED_STEP = 32 << 10
"""The robot acknowledges after this number of bytes."""
MAX_AHEAD = 4 << 20
"""Bytes of pieces that are on the way."""
SILENCE_S = 20.0
"""Seconds without a frame after which the other end counts as lost."""
ALIVE_INTERVAL_S = 5.0
LEVEL = 6
"""Of zstd, for what is sent as it is."""

T = TypeVar("T")


class Hello(msgspec.Struct):
    """The sender's first message."""

    protocol: int


class Lacking(msgspec.Struct, array_like=True):
    """An object that the robot does not have, and how much of it has arrived."""

    sha256: Sha256
    executable: bool
    arrived: Annotated[int, msgspec.Meta(ge=0)] = 0


class Offer(msgspec.Struct):
    """What a robot needs of a release that it has accepted."""

    lacking: list[Lacking]
    machine: Machine
    releases: list[Sha256]
    """Complete releases on the robot, whose objects patches may start from."""
    arrived: dict[Sha256, Annotated[int, msgspec.Meta(ge=0)]] = {}
    """Parts of patches that have arrived, by the SHA-256 of the patch."""


class Refusal(msgspec.Struct):
    """Why the robot refuses the transfer, or ends it."""

    code: Code
    message: str
    hint: str | None = None

    def error(self) -> ReleaseError:
        """Return it as an exception."""
        return ReleaseError(self.code, self.message[:1000], self.hint and self.hint[:500])


class Received(msgspec.Struct):
    """The release is complete on the robot."""

    release: str


class Begin(msgspec.Struct):
    """The pieces of an object follow."""

    sha256: Sha256
    executable: bool
    offset: Annotated[int, msgspec.Meta(ge=0)]
    """Of the first piece, in the object or in its patch."""
    patch: Sha256 | None = None
    """The SHA-256 of the patch, if the pieces are those of one."""
    patch_size: Annotated[int, msgspec.Meta(ge=0, le=MAX_PATCHED)] = 0
    base: Sha256 | None = None
    """What the patch starts from."""
    base_size: Annotated[int, msgspec.Meta(ge=0, le=MAX_PATCHED)] = 0
    base_executable: bool = False

    @property
    def base_object(self) -> Object | None:
        """What the patch starts from; None if the pieces are those of the object."""
        if self.base is None:
            return None
        return Object(self.base, self.base_size, self.base_executable)


def frame(kind: int, payload: Buffer | msgspec.Struct = b"") -> bytes:
    """Return the bytes of a frame."""
    content = msgspec.json.encode(payload) if isinstance(payload, msgspec.Struct) else payload
    return HEADER.pack(kind, memoryview(content).nbytes) + bytes(content)


def limit_of(kind: int) -> int:
    """Return the maximum number of bytes after the header of a frame."""
    return {MANIFEST: MAX_MANIFEST, SIGNATURE: MAX_SIGNATURE, PIECE: 2 * PIECE_SIZE}.get(
        kind, MAX_FRAME
    )


def check_header(header: bytes) -> tuple[int, int]:
    """Return kind and size of the frame that follows. Raises ReleaseError, code `protocol`."""
    kind, size = HEADER.unpack(header)
    if size > limit_of(kind):
        raise ReleaseError("protocol", f"a message of {size} bytes is too long")
    return kind, size


def decode(payload: bytes, kind: type[T]) -> T:
    """Return a message. Raises ReleaseError, code `protocol`."""
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ReleaseError("protocol", f"a message cannot be read: {error}") from error


def compress(piece: Buffer) -> bytes:
    """Return a manifest, or a piece of an object, for a frame."""
    return zstd.compress(piece, level=LEVEL)


def decompress(content: bytes, limit: int, base: bytes | None = None) -> bytes:
    """Decompress at most `limit` bytes.

    `base` is the dictionary of a patch.

    Raises:
        ReleaseError: code `protocol`: it is longer, or not valid.
    """
    options = {int(zstd.DecompressionParameter.window_log_max): MAX_WINDOW_LOG}
    dictionary = None if base is None else zstd.ZstdDict(base, is_raw=True).as_prefix
    try:
        decoder = zstd.ZstdDecompressor(zstd_dict=dictionary, options=options)
        unpacked = decoder.decompress(content, max_length=limit + 1)
    except (zstd.ZstdError, ValueError) as error:
        raise ReleaseError("protocol", f"a piece is damaged: {error}") from error
    if len(unpacked) > limit or not decoder.eof or decoder.unused_data:
        raise ReleaseError("protocol", "a piece is longer than it may be, or is cut short")
    return unpacked


def make_patch(base: bytes, content: bytes) -> bytes:
    """Return the patch that makes `content` of `base`."""
    size = len(base) + len(content)
    parameter = zstd.CompressionParameter
    options = {
        int(parameter.compression_level): PATCH_LEVEL,
        int(parameter.enable_long_distance_matching): True,
        int(parameter.window_log): min(max(size.bit_length(), MIN_WINDOW_LOG), MAX_WINDOW_LOG),
    }
    dictionary = zstd.ZstdDict(base, is_raw=True).as_prefix
    return zstd.compress(content, options=options, zstd_dict=dictionary)
