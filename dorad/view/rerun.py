"""Show a running dataflow in rerun: a stream of its messages, as rerun's own kinds of data."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dorad.control.arrayvalues import to_python_within
from dorad.problems import ProblemError
from dorad.record.encoding import extras, images
from dorad.view.feed import Backlog, Feed, Message, Source

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Sequence

    from dorad.logrecord import LogRecord

MAX_PLOTTED = 256
"""Longest array that is shown as lines of a plot; longer ones are tensors."""

MAX_TOGETHER = 64
"""Messages that rerun's library keeps before they are written: few small ones cost more."""

MAX_TEXT = 1 << 20
"""Bytes that the values of one message may take as Python objects, to be shown as text."""

_MODELS = {"rgb8": "RGB", "bgr8": "BGR", "rgba8": "RGBA", "bgra8": "BGRA", "mono8": "L"}
_DEEP = {"mono16": np.uint16, "16UC1": np.uint16, "32FC1": np.float32}
_PACKED = {"yuyv": "YUY2"}
_LEVELS = {"error": "ERROR", "warn": "WARN", "debug": "DEBUG", "trace": "TRACE"}


class RerunView:
    """Sends all chosen topics and the log lines to rerun."""

    def __init__(
        self,
        source: Source,
        chosen: Callable[[str], bool],
        *,
        name: str,
        rate: float | None = None,
    ) -> None:
        """`chosen` says which topics are shown.

        Raises:
            ProblemError: rerun is not installed.
        """
        try:
            import rerun
        except ImportError as error:
            raise ProblemError(
                "refused", "rerun is not installed", "pip install 'dorad[view]'"
            ) from error
        self._rerun: Any = rerun
        self._source = source
        self._chosen = chosen
        self._recording: Any = rerun.RecordingStream(f"dora {name}")
        self._stream = rerun.binary_stream(self._recording)
        self._backlog: Backlog[Message | LogRecord] = Backlog()
        self._feed = Feed(source, self._take, rate)

    @property
    def dropped(self) -> Counter[str]:
        """Messages that were dropped because rerun was too slow, by topic."""
        return self._backlog.dropped + self._feed.dropped

    async def run(self, *, stdout: bool = False) -> None:
        """Send to a new rerun, or to standard output, until the dataflow ends or rerun is closed.

        Raises:
            ProblemError: rerun cannot be started, or a terminal would get the stream.
        """
        with _stdout() if stdout else _new_rerun() as descriptor:
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(self._feed.run()),
                    tasks.create_task(self._take_lines()),
                ]
                following = tasks.create_task(self._follow())
                sending = tasks.create_task(self._send_all(descriptor))
                await asyncio.wait({following, sending}, return_when=asyncio.FIRST_COMPLETED)
                for each in (*running, following, sending):
                    each.cancel()

    async def _follow(self) -> None:
        await self._want()
        async for _ in self._source.changes():
            await self._want()

    async def _want(self) -> None:
        self._feed.want([topic for topic in await self._source.topics() if self._chosen(topic)])

    def _take(self, message: Message) -> None:
        self._backlog.put(message.topic, message.array.nbytes, message)

    async def _take_lines(self) -> None:
        async for lines in self._source.lines():
            for line in lines:
                self._backlog.put(extras.LOG_TOPIC, len(line.message), line)

    async def _send_all(self, descriptor: int) -> None:
        """Send what comes until rerun is closed."""
        together = 0
        try:
            while True:
                item = await self._backlog.get()
                if isinstance(item, Message):
                    self._log(item)
                else:
                    self._log_line(item)
                together += 1
                if not self._backlog or together == MAX_TOGETHER:
                    await _write(descriptor, self._stream.read() or b"")
                    together = 0
        except BrokenPipeError:
            return

    def _log_line(self, line: LogRecord) -> None:
        self._recording.set_time("time", timestamp=line.timestamp)
        text = self._rerun.TextLog(line.message, level=_LEVELS.get(line.level, "INFO"))
        self._recording.log(f"{extras.LOG_TOPIC}/{line.node or 'dora'}", text)

    def _log(self, message: Message) -> None:
        self._recording.set_time("time", timestamp=np.datetime64(message.stamp, "ns"))
        picture = self._picture(message)
        if picture is not None:
            self._recording.log(message.topic, picture)
            return
        for path, values in viewable(message.array):
            self._recording.log(message.topic + path, self._values(values))

    def _values(self, values: np.ndarray[Any, Any] | str) -> Any:
        if isinstance(values, str):
            return self._rerun.TextLog(values)
        return (self._rerun.Scalars if len(values) <= MAX_PLOTTED else self._rerun.Tensor)(values)

    def _picture(self, message: Message) -> Any:
        """Return a message as a picture of rerun; None if it is none."""
        array, metadata = message.array, message.metadata
        if images.is_picture_type(array.type) and len(array) == 1 and array.is_valid()[0].as_py():
            metadata = {name: array[0][name].as_py() for name in ("width", "height", "encoding")}
            data = array[0]["data"].as_buffer() or b""
        elif array.type in (pa.uint8(), pa.uint16(), pa.float32()) and not array.null_count:
            data = array.to_numpy().tobytes()
        else:
            return None
        head = images.encode_image(
            memoryview(data), metadata, message.stamp, width=_width(array.type)
        )
        if head is None:
            return None
        name = str(metadata["encoding"])
        if head.name == images.COMPRESSED_IMAGE:
            kind = name.lower().replace("jpg", "jpeg")
            return self._rerun.EncodedImage(contents=bytes(data), media_type=f"image/{kind}")
        name = images.NAMES.get(name, name)
        width, height = metadata["width"], metadata["height"]
        if name in _DEEP:
            return self._rerun.DepthImage(np.frombuffer(data, _DEEP[name]).reshape(height, width))
        options = {"width": width, "height": height, "bytes": bytes(data)}
        if name in _MODELS:
            return self._rerun.Image(
                color_model=_MODELS[name], datatype=self._rerun.ChannelDatatype.U8, **options
            )
        if name in _PACKED:
            pixels = getattr(self._rerun.PixelFormat, _PACKED[name])
            return self._rerun.Image(pixel_format=pixels, **options)
        return None


def _width(kind: pa.DataType) -> int:
    return 1 if pa.types.is_struct(kind) else int(kind.bit_width // 8)


def viewable(array: pa.Array, path: str = "") -> Iterator[tuple[str, np.ndarray[Any, Any] | str]]:
    """Yield what rerun shows of an array: numbers, or text, by path. Each member has its own."""
    t, kind = pa.types, array.type
    if isinstance(array, pa.ExtensionArray):
        yield from viewable(array.storage, path)
    elif t.is_struct(kind) and kind.num_fields:
        for field, values in zip(kind, array.flatten(), strict=True):
            yield from viewable(values, f"{path}/{field.name}")
    elif (t.is_list(kind) or t.is_large_list(kind)) and len(array) == 1:
        yield from viewable(array.flatten(), path)
    elif t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind) or t.is_boolean(kind):
        wide = array.cast(pa.uint8()) if t.is_boolean(kind) else array
        yield path, wide.cast(pa.float64(), safe=False).fill_null(float("nan")).to_numpy()
    else:
        yield path, _text(array)


def _text(array: pa.Array) -> str:
    values = to_python_within(array, MAX_TEXT)
    if values is None:
        return f"{len(array)} x {array.type}"
    texts: Sequence[str] = [
        value if isinstance(value, str) else json.dumps(value, default=str) for value in values
    ]
    return "\n".join(texts)


@contextmanager
def _new_rerun() -> Iterator[int]:
    """Start rerun; yield the descriptor that it reads from. It stays when the stream ends."""
    beside = Path(sys.executable).with_name("rerun")
    program = str(beside) if beside.exists() else shutil.which("rerun")
    if program is None:
        raise ProblemError("refused", "there is no program `rerun`", "pip install 'dorad[view]'")
    # It listens, too: never on other interfaces. In its own session it stays after Ctrl-C.
    command = (program, "--bind", "127.0.0.1", "--port", "auto", "-")
    viewer = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    assert viewer.stdin is not None
    with viewer.stdin as pipe:
        os.set_blocking(pipe.fileno(), False)
        yield pipe.fileno()


@contextmanager
def _stdout() -> Iterator[int]:
    if sys.stdout.isatty():
        raise ProblemError("refused", "a terminal cannot show the stream", "add `| rerun -`")
    descriptor = sys.stdout.fileno()
    os.set_blocking(descriptor, False)
    try:
        yield descriptor
    finally:
        os.set_blocking(descriptor, True)


async def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    loop = asyncio.get_running_loop()
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            room = asyncio.Event()
            loop.add_writer(descriptor, room.set)
            try:
                await room.wait()
            finally:
                loop.remove_writer(descriptor)
