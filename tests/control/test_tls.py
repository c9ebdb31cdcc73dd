"""The owner of a certificate and its dates, as functions; real handshakes are in tests/fleet."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.control.tls import GRACE_S, Identity, Validity, judge

DAY = 86400.0
YEAR = 365 * DAY


@pytest.mark.parametrize(
    ("days", "validity"),
    [
        (-400, Validity("valid")),
        (0, Validity("valid")),
        (121, Validity("valid")),
        (122, Validity("renew")),
        (364, Validity("renew")),
        (365.1, Validity("expired", 0)),
        (395, Validity("expired", 30)),
        (454, Validity("expired", 89)),
        (456, Validity("too-old", 91)),
        (40_000, Validity("too-old", 39_635)),
    ],
)
def test_a_certificate_is_renewed_from_a_third_of_its_life_until_90_days_after_it(days, validity):
    assert judge(0, YEAR, days * DAY) == validity


@given(st.floats(0, 1e10), st.floats(1, 1e9), st.floats(-1e10, 1e11), st.floats(0, 1e9))
def test_a_certificate_never_gets_better(start, life, now, later):
    order = ("valid", "renew", "expired", "too-old")
    first = judge(start, start + life, now)
    second = judge(start, start + life, now + later)
    assert order.index(first.verdict) <= order.index(second.verdict)
    assert first.days <= second.days
    if first.verdict == "expired":
        assert 0 <= first.days <= GRACE_S / DAY


@pytest.mark.parametrize(
    ("identity", "uri"),
    [
        (Identity("robot", "arm1"), "dorad:robot/arm1"),
        (Identity("operator", "ann", "viewer"), "dorad:operator/ann/viewer"),
        (Identity("coordinator", "main"), "dorad:coordinator/main"),
    ],
)
def test_an_identity_is_written_as_a_uri_and_read_again(identity, uri):
    assert str(identity) == uri
    assert Identity.parse(uri) == identity


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "robot/arm1",
        "dorad:",
        "dorad:robot",
        "dorad:robot/",
        "dorad:robot/arm1/admin",
        "dorad:robot/arm 1",
        "dorad:robot/" + "x" * 201,
        "dorad:robot/é",
        "dorad:operator/ann",
        "dorad:operator/ann/root",
        "dorad:operator/ann/robot",
        "dorad:operator/ann/admin/x",
        "dorad:dorad:robot/arm1",
        "http://x/dorad:robot/arm1",
        "dorad:service/x",
    ],
)
def test_what_names_no_owner_is_refused(uri):
    with pytest.raises(ValueError, match="names no robot, operator or coordinator"):
        Identity.parse(uri)


@given(st.text())
def test_any_text_is_an_identity_or_refused(text):
    for uri in (text, f"dorad:{text}", f"dorad:robot/{text}"):
        with contextlib.suppress(ValueError):
            assert str(Identity.parse(uri)) == uri
