"""A buffer object that counts its views and can refuse new ones.

Python classes can implement the buffer protocol since version 3.12 (PEP 688). For 3.11 the type is
created with `PyType_FromSpecWithBases`. Everything it uses is part of the stable ABI.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

ENDED = "Cannot acquire buffer view: the parent SampleHandler has been sent or dropped"


class _Hold:
    """Calls a function once: in `end`, or when the last reference to it is dropped."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def end(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()

    __del__ = end


class _Memory:
    """The state of a buffer: its memory, the number of open views, and the hold on the sample."""

    __slots__ = ("_hold", "_memory", "views")

    _hold: _Hold
    _memory: Any
    views: int

    if TYPE_CHECKING:  # the subclasses below are buffers

        def __buffer__(self, flags: int, /) -> memoryview: ...

    def __len__(self) -> int:
        with memoryview(self) as view:
            return len(view)

    def __getitem__(self, key: Any) -> Any:
        with memoryview(self) as view:
            return bytes(view[key]) if isinstance(key, slice) else view[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        with memoryview(self) as view:
            view[key] = value

    def __bool__(self) -> bool:
        return True

    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle 'SampleBuffer' object")


if sys.version_info >= (3, 12):

    class SampleBuffer(_Memory):
        """A writable buffer over a sample's memory."""

        __slots__ = ("_ended",)

        _ended: bool

        def __buffer__(self, flags: int) -> memoryview:
            if self._ended:
                raise BufferError(ENDED)
            self.views += 1
            return memoryview(self._memory).cast("B")

        def __release_buffer__(self, view: memoryview) -> None:
            self.views -= 1
            view.release()

    def _begin() -> Any:
        buffer = SampleBuffer()
        buffer._ended = False
        return buffer

    def end(buffer: Any) -> None:
        """Refuse new views of the buffer."""
        buffer._ended = True

else:
    _GET_BUFFER, _RELEASE_BUFFER = 1, 2  # slots, from CPython's typeslots.h
    _DEFAULT = 1 << 18  # Py_TPFLAGS_DEFAULT

    class _Slot(ctypes.Structure):
        _fields_ = (("slot", ctypes.c_int), ("function", ctypes.c_void_p))

    class _Spec(ctypes.Structure):
        _fields_ = (
            ("name", ctypes.c_char_p),
            ("basicsize", ctypes.c_int),
            ("itemsize", ctypes.c_int),
            ("flags", ctypes.c_uint),
            ("slots", ctypes.POINTER(_Slot)),
        )

    _api = ctypes.pythonapi
    _int, _void_p, _object = ctypes.c_int, ctypes.c_void_p, ctypes.py_object
    _fill = ctypes.PYFUNCTYPE(_int, _void_p, _object, _void_p, ctypes.c_ssize_t, _int, _int)(
        ("PyBuffer_FillInfo", _api)
    )
    _new_type = ctypes.PYFUNCTYPE(_object, _void_p, _object)(("PyType_FromSpecWithBases", _api))

    def _get(buffer: Any, view: int, flags: int) -> int:
        memory = buffer._memory
        address, size = ctypes.addressof(memory), ctypes.sizeof(memory)
        buffer.views += 1
        return int(_fill(view, buffer, address, size, 0, flags))

    def _release(buffer: Any, _: int) -> None:
        buffer.views -= 1

    _get_c = ctypes.PYFUNCTYPE(_int, _object, _void_p, _int)(_get)
    _release_c = ctypes.PYFUNCTYPE(None, _object, _void_p)(_release)
    _kept: list[Any] = []

    def _make(get: Any) -> Any:
        """Return a type with the layout of `_Memory` whose `getbuffer` is a C function."""
        slots = (_Slot * 3)(
            _Slot(_GET_BUFFER, ctypes.cast(get, _void_p).value),
            _Slot(_RELEASE_BUFFER, ctypes.cast(_release_c, _void_p).value),
            _Slot(0, None),
        )
        spec = _Spec(
            b"dorad.node.samplebuffer.SampleBuffer", _Memory.__basicsize__, 0, _DEFAULT, slots
        )
        _kept.append((spec, slots))
        return _new_type(ctypes.addressof(spec), (_Memory,))

    SampleBuffer = _make(_get_c)
    # A ctypes callback cannot raise. An ended buffer must raise BufferError for new views.
    # So its `getbuffer` is a C function that calls `__index__`, which raises, and returns -1.
    # Only a change of class can replace `getbuffer` of an existing object.
    _Ended = _make(_api.PyNumber_AsSsize_t)

    def _refuse(_: Any) -> int:
        raise BufferError(ENDED)

    _Ended.__index__ = _refuse

    def _begin() -> Any:
        return SampleBuffer()

    def end(buffer: Any) -> None:
        """Refuse new views of the buffer."""
        buffer.__class__ = _Ended


def begin(memory: Any, offset: int, length: int, on_end: Callable[[], None]) -> Any:
    """Return a new buffer over writable memory, without views.

    `on_end` is called once: by `release`, or when the buffer and all its views are freed.
    """
    buffer = _begin()
    buffer._memory = (ctypes.c_ubyte * length).from_buffer(memory, offset)
    buffer._hold = _Hold(on_end)
    buffer.views = 0
    return buffer


def release(buffer: Any) -> None:
    """Release the memory; no view of it may be open."""
    buffer._hold.end()
