"""Values that are sealed for one robot: only its key opens them, and only for their purpose."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.control.errors import ControlError
from dorad.control.sealed import Purpose, new_key, public_key, seal, unseal

KEY, OTHER = new_key(), new_key()
PURPOSES = st.builds(
    Purpose, st.text(max_size=20), st.text(max_size=20), st.integers(0, (1 << 62) - 1)
)
VALUES = st.binary(max_size=2000)


@given(VALUES, PURPOSES)
def test_the_robot_of_the_key_gets_the_value(value, purpose):
    assert unseal(seal(value, public_key(KEY), purpose), KEY, purpose) == value


@given(VALUES, PURPOSES, PURPOSES)
def test_no_other_robot_name_or_version_gets_it(value, purpose, another):
    sealed = seal(value, public_key(KEY), purpose)
    with pytest.raises(ControlError):
        unseal(sealed, OTHER, purpose)
    if another != purpose:
        with pytest.raises(ControlError):
            unseal(sealed, KEY, another)


@given(st.binary(min_size=20, max_size=200), PURPOSES, st.data())
def test_a_changed_byte_is_noticed_and_nothing_shows_the_value(value, purpose, data):
    content = bytearray(base64.b64decode(seal(value, public_key(KEY), purpose)))
    assert value not in content
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ControlError):
        unseal(base64.b64encode(content).decode(), KEY, purpose)


@given(st.text(max_size=200), st.binary(max_size=80), PURPOSES)
def test_nonsense_is_refused_and_raises_nothing_else(text, key, purpose):
    with pytest.raises(ControlError):
        unseal(text, KEY, purpose)
    with pytest.raises(ControlError):
        unseal(text, key, purpose)
    if len(key) != 32:
        with pytest.raises(ControlError):
            public_key(key)
    try:
        seal(b"value", text, purpose)
    except ControlError:
        return
    assert len(base64.b64decode(text)) == 32


def test_two_sealed_values_never_look_alike():
    purpose = Purpose("arm1", "api-key", 1)
    assert len({seal(b"x", public_key(KEY), purpose) for _ in range(100)}) == 100
