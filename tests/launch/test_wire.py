"""Commands reach the holder unchanged, with any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.launch.holder.wire import join_numbers, pack_command, split_numbers, unpack_command

texts = st.binary().map(lambda data: data.replace(b"\0", b""))
names = st.binary(min_size=1).map(lambda data: data.replace(b"\0", b"x").replace(b"=", b"y"))
cores = st.lists(st.integers(min_value=0)).map(tuple)


@given(st.lists(texts, min_size=1), texts, st.dictionaries(names, texts), cores, cores)
def test_a_packed_message_is_unpacked(
    argv: list[bytes],
    cwd: bytes,
    env: dict[bytes, bytes],
    cores: tuple[int, ...],
    schedule: tuple[int, ...],
) -> None:
    packed = pack_command(argv, cwd, env, cores, schedule)
    assert unpack_command(packed) == (argv, cwd, env, cores, schedule)


@pytest.mark.parametrize(
    ("argv", "cwd", "env"),
    [([b"a\0"], b"/", {}), ([b"a"], b"/\0", {}), ([b"a"], b"/", {b"A": b"\0"})],
)
def test_nul_bytes_are_refused(argv: list[bytes], cwd: bytes, env: dict[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="NUL"):
        pack_command(argv, cwd, env, ())


@given(cores)
def test_numbers_are_one_word(numbers: tuple[int, ...]) -> None:
    word = join_numbers(numbers)
    assert len(word.split()) == 1
    assert split_numbers(word) == numbers
