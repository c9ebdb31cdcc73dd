"""A robot takes a new authority only with the signature of the one that it trusts."""

from __future__ import annotations

import contextlib
import datetime
import resource
import shutil
import ssl
import tempfile
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from dorad.agent import handover, keys
from dorad.agent.folder import FIRST, HAND_OVER
from dorad.agent.identity import Enrolment
from dorad.agent.identitystore import IdentityStore
from dorad.control.errors import ControlError
from dorad.control.messages import Nothing
from dorad.control.messages.agent import (
    AGENT_CERTIFY,
    AGENT_HANDOVER,
    AGENT_RENEW,
    Certificates,
    HandOver,
)
from dorad.control.tls import Identity
from dorafleet.ca.authority import ISSUER, ROOT, ROOT_KEY, open_authority, pem, read_key, signing
from dorafleet.ca.handover import make_successor, open_successor
from tests.agent.fleet import robot as robot_of_fleet
from tests.fleet.ca.keys import new_key, rsa_key
from tests.harness.waiting import until

ARM = Identity("robot", "arm1")
DAY = datetime.timedelta(days=1)
HEAD = f"9:{'a' * 64}"


class Chain:
    """Authorities of one fleet, each signed by the one before; made once for all tests."""

    def __init__(self, folder):
        self.folder = folder / "ca"
        self.authorities = [open_authority(self.folder)]
        self.places = [self.folder]
        self.orders = []
        for _ in range(2):
            found = make_successor(self.folder, self.places[-1], 30)
            new = open_successor(self.folder, self.authorities[-1], found, time.time())
            self.places.append(self.folder / found[:16])
            self.authorities.append(new.authority)
            self.orders.append(new.order)
        self.stranger = open_authority(folder / "stranger")

    def root(self, number):
        return x509.load_pem_x509_certificate(self.authorities[number].certificate.encode())

    def key(self, number, name=ROOT_KEY):
        return read_key(self.places[number] / name)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return Chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture
def robot(tmp_path, chain):
    """The identity of a robot that the first authority has enrolled."""
    store = IdentityStore(tmp_path)
    issued = chain.authorities[0].issue(store.request("arm1"), ARM)
    authority = chain.authorities[0].certificate
    store.enrol(Enrolment("arm1", ["base"], issued.chain, authority))
    return store


def certify(robot, authority):
    """Give the robot a certificate, as a coordinator does."""
    issued = authority.issue(robot.renew(), ARM)
    return robot.certify(issued.chain, authority.certificate)


def fingerprints(chain, *numbers):
    return [chain.authorities[number].fingerprint for number in numbers]


# -- what a signature must be ----------------------------------------------------------------------


def root_of(key, below=1, *, ca=True, name="another"):
    """Return a root that signs itself."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + 9999 * DAY)
    )
    if ca is not None:
        limits = x509.BasicConstraints(ca, below if ca else None)
        builder = builder.add_extension(limits, critical=True)
        usage = [not ca, *[False] * 4, ca, ca, False, False]
        builder = builder.add_extension(x509.KeyUsage(*usage), critical=True)
    return builder.sign(key, hashes.SHA256())


def issuer_of(key, root_key, root, below=0):
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    return signing(name, root.subject, key.public_key(), below).sign(root_key, hashes.SHA256())


def signature(
    chain, new, *, by=0, key=None, of=None, uri=None, below=1, begins=0, days=30, public=None
):
    """Return what an authority signs for a new root; the rest is what may be wrong."""
    signer = chain.root(by)
    begun = datetime.datetime.now(datetime.UTC) + begins * DAY
    builder = signing(
        (of or new).subject,
        signer.subject,
        (public or new.public_key()),
        below,
        (begun, begun + days * DAY),
    )
    uri = handover.hand_over_uri(signer, new) if uri is None else uri
    if uri:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key or chain.key(by), hashes.SHA256())


def offered(root, issuer, signed):
    return HandOver(root=pem(root), issuer=pem(issuer), signature=pem(signed))


def wrong(chain):
    """Yield what is wrong with a hand-over, the order, and what the robot says."""
    key, other, issuer_key = new_key(), new_key(), new_key()
    root = root_of(key)
    issuer = issuer_of(issuer_key, key, root)
    yield (
        "signed by a stranger",
        offered(root, issuer, signature(chain, root, key=other)),
        "has not signed it",
    )
    yield "signed by the new root itself", offered(root, issuer, root), "has not signed it"
    yield (
        "signed by the next authority",
        offered(root, issuer, signature(chain, root, by=1)),
        "has not signed it",
    )
    # A coordinator in wrong hands has the keys of both issuers, and all that the root has signed.
    for name in (ISSUER, "operators"):
        stolen = chain.key(0, f"{name}.key")
        own = x509.load_pem_x509_certificate((chain.folder / f"{name}.pem").read_bytes())
        posing = root_of(stolen, name=own.subject.rfc4514_string().removeprefix("CN="))
        yield (
            f"the {name} as a root",
            offered(posing, issuer_of(issuer_key, stolen, posing), own),
            "may not sign what it is for",
        )
        signed = signing(root.subject, own.subject, root.public_key(), 1).sign(
            stolen, hashes.SHA256()
        )
        yield f"signed by the {name}", offered(root, issuer, signed), "has not signed it"
    for days, begins in ((1, -3), (30, -60)):
        made = signature(chain, root, days=days, begins=begins)
        yield f"over for {-begins - days} days", offered(root, issuer, made), "it ended on 20"
    yield "valid for ever", offered(root, issuer, signature(chain, root, days=500)), "more than 400"
    fleet = handover.hand_over_uri(chain.root(1), root)
    yield (
        "of another fleet",
        offered(root, issuer, signature(chain, root, uri=fleet)),
        "does not name this fleet",
    )
    yield (
        "without a name",
        offered(root, issuer, signature(chain, root, uri="")),
        "does not name this fleet",
    )
    yield (
        "of another root",
        offered(
            root,
            issuer,
            signature(chain, root, uri=handover.hand_over_uri(chain.root(0), chain.root(1))),
        ),
        "does not name this fleet",
    )
    yield (
        "another key of the same name",
        offered(root, issuer, signature(chain, root, public=other.public_key())),
        "another authority than the new one",
    )
    yield (
        "another name of the same key",
        offered(root, issuer, signature(chain, root, of=chain.root(2))),
        "another authority than the new one",
    )
    for below in (0, 2):
        yield (
            f"{below} below",
            offered(root, issuer, signature(chain, root, below=below)),
            "may not sign what it is for",
        )
    for ca in (False, None):
        poor = root_of(key, ca=ca)
        expected = "does not say what it may sign" if ca is None else "may not sign"
        yield (
            f"a root with {ca=}",
            offered(poor, issuer_of(issuer_key, key, poor), signature(chain, poor)),
            expected,
        )
    yield (
        "an issuer that signs issuers",
        offered(root, issuer_of(issuer_key, key, root, below=1), signature(chain, root)),
        "may not sign",
    )
    yield (
        "an issuer of another root",
        offered(root, issuer_of(issuer_key, other, root), signature(chain, root)),
        "has not signed its own",
    )
    unsigned = root_of(key, name="unsigned")
    yield (
        "a root that has not signed itself",
        offered(issuer_of(key, other, unsigned, below=1), issuer, signature(chain, unsigned)),
        "has not signed its own",
    )
    large = rsa_key()
    big = root_of(large)
    yield (
        "a key of RSA",
        offered(big, issuer_of(issuer_key, large, big), signature(chain, big)),
        "not of the curve",
    )
    weak = new_key(ec.SECP224R1())
    small = root_of(weak)
    yield (
        "a small curve",
        offered(small, issuer_of(issuer_key, weak, small), signature(chain, small)),
        "not of the curve",
    )


def test_only_what_the_trusted_root_has_signed_for_this_fleet_and_time_is_taken(robot, chain):
    before, files = robot.version, robot._files()
    for what, order, expected in wrong(chain):
        for finished in (False, True):
            given = HandOver(order.root, order.issuer, order.signature, finished)
            with pytest.raises(ControlError) as caught:
                robot.hand_over(given, time.time())
            assert expected in caught.value.message, what
    assert (robot.version, robot._files()) == (before, files)


@pytest.mark.parametrize("field", ["root", "issuer", "signature"])
@pytest.mark.parametrize("text", ["", "nonsense", "x" * 100_000, "twice"])
def test_nonsense_is_no_authority(robot, chain, field, text):
    order = chain.orders[0]
    before = robot.version
    text = 2 * getattr(order, field) if text == "twice" else text
    with pytest.raises(ControlError):
        robot.hand_over(HandOver(**{**as_dict(order), field: text}), time.time())
    assert robot.version == before


def as_dict(order):
    return {name: getattr(order, name) for name in ("root", "issuer", "signature")}


@given(st.data())
def test_no_changed_byte_of_a_signature_is_taken(chain, data):
    """A property of signatures; what is not a certificate any more is refused, too."""
    der = bytearray(ssl.PEM_cert_to_DER_cert(chain.orders[0].signature))
    place = data.draw(st.integers(0, len(der) - 1))
    der[place] ^= data.draw(st.integers(1, 255))
    text = ssl.DER_cert_to_PEM_cert(bytes(der))
    order, trusted = chain.orders[0], chain.authorities[0].certificate
    with pytest.raises(ControlError):
        handover.check(trusted, order.root, order.issuer, text, time.time())


# -- the way from one authority to the next --------------------------------------------------------


def test_a_robot_trusts_both_then_gets_a_certificate_then_drops_the_old(robot, chain, tmp_path):
    first, second, _ = chain.authorities
    before = robot.load()
    order = chain.orders[0]
    assert robot.hand_over(order, time.time()).trusted == fingerprints(chain, 0, 1)
    version = robot.version
    assert robot.hand_over(order, time.time()).certified is False
    assert robot.version == version  # told again, nothing is written
    assert (tmp_path / "identity/issuer.pem").read_text() == first.issuer + second.issuer
    # Until it has a certificate of the new authority, the old one stays, whatever it is told.
    with pytest.raises(ControlError, match="no certificate of the new authority yet"):
        robot.hand_over(finished(order), time.time())
    certify(robot, first)  # a renewal in between
    assert (tmp_path / "identity/issuer.pem").read_text() == first.issuer + second.issuer
    certify(robot, second)
    assert robot.trust().certified
    assert robot.trust().trusted == fingerprints(chain, 0, 1)
    robot.move(["elsewhere"])
    assert robot.hand_over(finished(order), time.time()).trusted == fingerprints(chain, 1)
    assert (tmp_path / "identity/authority.pem").read_text() == second.certificate
    assert (tmp_path / "identity/issuer.pem").read_text() == second.issuer
    after = robot.load()
    assert (after.fleet, after.authority) == (before.fleet, before.authority)
    # The way back is closed: the old authority has no certificate for it, and signs no hand-over.
    with pytest.raises(ControlError, match="another authority"):
        certify(robot, first)
    with pytest.raises(ControlError, match="refused"):
        robot.hand_over(HandOver(first.certificate, first.issuer, order.signature), time.time())


def finished(order):
    return HandOver(**as_dict(order), finished=True)


def test_a_second_hand_over_drops_what_the_first_has_left(robot, chain):
    """A robot that missed the end of the first one: it trusts two authorities, never three."""
    robot.hand_over(chain.orders[0], time.time())
    certify(robot, chain.authorities[1])
    assert robot.hand_over(chain.orders[1], time.time()).trusted == fingerprints(chain, 1, 2)
    certify(robot, chain.authorities[2])
    assert robot.hand_over(finished(chain.orders[0]), time.time()).trusted == fingerprints(
        chain, 1, 2
    )
    assert robot.hand_over(finished(chain.orders[1]), time.time()).trusted == fingerprints(chain, 2)


def cancelled(order):
    return HandOver(**as_dict(order), cancelled=True)


def test_a_cancelled_hand_over_leaves_a_robot_as_it_was(robot, chain, tmp_path):
    before, files = robot.load(), ("authority.pem", "issuer.pem")
    kept = [(tmp_path / "identity" / each).read_text() for each in files]
    order = chain.orders[0]
    assert robot.hand_over(cancelled(order), time.time()).trusted == fingerprints(chain, 0)
    robot.hand_over(order, time.time())
    certify(robot, chain.authorities[0])  # a renewal in between
    # It may be told after the date, by a clock that is right or wrong.
    late = time.time() + 9999 * 86400
    assert robot.hand_over(cancelled(order), late).trusted == fingerprints(chain, 0)
    assert robot.trust().certified
    assert [(tmp_path / "identity" / each).read_text() for each in files] == kept
    version = robot.version
    robot.hand_over(cancelled(order), time.time())
    assert robot.version == version
    assert robot.load() == before
    # The authority that was dropped gives it no certificate, and hands over to none.
    with pytest.raises(ControlError, match="another authority"):
        certify(robot, chain.authorities[1])
    with pytest.raises(ControlError, match="has not signed it"):
        robot.hand_over(chain.orders[1], time.time())


def test_with_a_certificate_of_the_new_authority_a_robot_drops_it_for_nobody(robot, chain):
    """It would have none of an authority that it trusts."""
    robot.hand_over(chain.orders[0], time.time())
    certify(robot, chain.authorities[1])
    with pytest.raises(ControlError, match="has a certificate of the new authority"):
        robot.hand_over(cancelled(chain.orders[0]), time.time())
    assert robot.trust().trusted == fingerprints(chain, 0, 1)
    robot.hand_over(finished(chain.orders[0]), time.time())
    assert robot.hand_over(cancelled(chain.orders[0]), time.time()).trusted == fingerprints(
        chain, 1
    )


def test_a_robot_that_missed_the_cancelling_follows_the_next_hand_over(robot, chain, tmp_path):
    other = make_successor(chain.folder, chain.folder, 30)
    after = open_successor(chain.folder, chain.authorities[0], other, time.time())
    try:
        robot.hand_over(chain.orders[0], time.time())
        assert robot.hand_over(after.order, time.time()).trusted == [
            *fingerprints(chain, 0),
            other,
        ]
        # Not one that is of a certificate's authority: this robot has to keep that.
        robot.hand_over(cancelled(after.order), time.time())
        robot.hand_over(chain.orders[0], time.time())
        certify(robot, chain.authorities[1])
        with pytest.raises(ControlError, match="has not signed it"):
            robot.hand_over(after.order, time.time())
        assert robot.trust().trusted == fingerprints(chain, 0, 1)
    finally:
        shutil.rmtree(chain.folder / other[:16])


@contextlib.contextmanager
def full_disk():
    """Let no file have more than a few bytes, as on a disk that is almost full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_changes_no_authority_leaves_nothing_behind_and_is_tried_again(
    robot, chain, tmp_path
):
    second, order = chain.authorities[1], chain.orders[0]

    def told(change):
        return lambda: robot.hand_over(change(order), time.time())

    steps = [told(as_is), told(cancelled), told(as_is)]
    steps += [lambda: certify(robot, second), told(finished)]
    for step in steps:
        before, trusted = robot.load(), robot.trust()
        for _ in range(3):
            with full_disk(), pytest.raises(OSError, match="File too large"):
                step()
        assert (robot.load(), robot.trust()) == (before, trusted)
        assert len([*tmp_path.glob("identity.*")]) == 1
        step()
        assert len([*tmp_path.glob("identity.*")]) == 1
    assert robot.trust().trusted == [second.fingerprint]


ORDERS = st.tuples(
    st.sampled_from(["begin", "cancel", "finish", "certify", "date"]), st.integers(0, 2)
)


@pytest.mark.long
@given(steps=st.lists(ORDERS, max_size=12))
def test_whatever_a_robot_is_told_its_certificate_is_of_an_authority_that_it_trusts(chain, steps):
    """Also by a coordinator in wrong hands, which has the keys of the issuers."""
    with tempfile.TemporaryDirectory() as folder:
        robot = IdentityStore(Path(folder))
        first = chain.authorities[0]
        issued = first.issue(robot.request("arm1"), ARM)
        robot.enrol(Enrolment("arm1", ["base"], issued.chain, first.certificate))
        for what, number in steps:
            order = chain.orders[min(number, 1)]
            with contextlib.suppress(ControlError):
                if what == "certify":
                    certify(robot, chain.authorities[number])
                elif what == "date":
                    robot.end_hand_over(time.time() + 9999 * 86400)
                else:
                    change = {"begin": as_is, "cancel": cancelled, "finish": finished}[what]
                    robot.hand_over(change(order), time.time())
            trusted = (Path(folder) / "identity/authority.pem").read_text()
            chain_ = (Path(folder) / "identity/chain.pem").read_text()
            assert keys.leads_to(chain_, trusted)
            assert 1 <= len(robot.trust().trusted) <= 2


def as_is(order):
    return order


@pytest.mark.parametrize("days", [-9999, 0, 29, 31, 9999])
@pytest.mark.parametrize("certified", [False, True])
def test_after_its_date_the_old_authority_is_dropped_if_the_robot_has_a_new_certificate(
    robot, chain, days, certified
):
    robot.hand_over(chain.orders[0], time.time())
    if certified:
        certify(robot, chain.authorities[1])
    version = robot.version
    robot.end_hand_over(time.time() + days * 86400)
    dropped = certified and days > 30
    assert robot.trust().trusted == fingerprints(chain, *((1,) if dropped else (0, 1)))
    assert (robot.version != version) is dropped


def test_a_clock_that_is_behind_takes_a_hand_over_and_one_far_ahead_says_why_not(robot, chain):
    with pytest.raises(ControlError, match="by this machine's clock"):
        robot.hand_over(chain.orders[0], time.time() + 40 * 86400)
    assert robot.hand_over(chain.orders[0], 0.0).trusted == fingerprints(chain, 0, 1)


def test_enrolled_again_by_the_new_authority_it_keeps_its_fleet_and_by_another_not(
    robot, chain, tmp_path
):
    second = chain.authorities[1]
    robot.hand_over(chain.orders[0], time.time())
    certify(robot, second)
    before = robot.hand_over(finished(chain.orders[0]), time.time()) and robot.load()
    for authority, same in ((second, True), (chain.stranger, False)):
        issued = authority.issue(robot.request("arm1", replace=True), ARM)
        answer = Enrolment("arm1", ["base"], issued.chain, authority.certificate)
        found = robot.enrol(answer, replace=True)
        assert (found.authority == before.authority) is same
        assert found.fleet != before.fleet  # the terms of coordinators are forgotten
        assert ((tmp_path / "identity" / FIRST).exists()) is same
        assert not (tmp_path / "identity" / HAND_OVER).exists()


@pytest.mark.parametrize("damage", [None, b"", b"nonsense", b"\xff"])
def test_an_enrolment_mends_an_identity_that_was_damaged_during_a_hand_over(
    robot, chain, tmp_path, damage
):
    robot.hand_over(chain.orders[0], time.time())
    file = tmp_path / "identity/authority.pem"
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
    issued = chain.authorities[0].issue(robot.request("arm1", replace=True), ARM)
    authority = chain.authorities[0].certificate
    robot.enrol(Enrolment("arm1", ["base"], issued.chain, authority), replace=True)
    assert robot.trust().trusted == fingerprints(chain, 0)


def test_the_root_s_key_is_asked_for_and_no_other_key_is_used(tmp_path, chain):
    folder = tmp_path / "ca"
    open_authority(folder)
    key = tmp_path / "safe.key"
    (folder / ROOT_KEY).rename(key)
    with pytest.raises(ControlError, match=r"root\.key is missing"):
        make_successor(folder, folder, 30)
    with pytest.raises(ControlError, match="is not the key of"):
        make_successor(folder, folder, 30, folder / "issuer.key")
    assert not list(folder.glob("*/"))
    found = make_successor(folder, folder, 30, key)
    assert (folder / found[:16] / ROOT).exists()
    with pytest.raises(ControlError, match="has not signed it"):
        open_successor(folder, chain.authorities[0], found, time.time())


# -- over the connection of an agent ---------------------------------------------------------------


async def test_a_refused_hand_over_is_counted_and_shown(folder, chain):
    async with robot_of_fleet(folder) as (coordinator, agent, _):
        control = await coordinator.attach()
        for _ in range(2):
            with pytest.raises(ControlError, match="has not signed it"):
                await control.client.call(AGENT_HANDOVER, chain.orders[0])
        shown = "hand-overs that were refused: 2; the last: the hand-over to another authority"
        await until(
            lambda: any(shown in text for each in control.reports for text in each.warnings)
        )
        assert shown in agent.command("status").stdout
        assert "has not signed it" in agent.log
        await control.close()


async def test_an_agent_connects_again_with_each_change_and_knows_its_fleet(folder):
    async with robot_of_fleet(folder) as (coordinator, agent, _):
        control = await coordinator.attach(epoch=7, audit=HEAD)
        made = make_successor(folder / "ca", folder / "ca", 30)
        new = open_successor(folder / "ca", coordinator.authority, made, time.time())
        trust = await control.client.call(AGENT_HANDOVER, new.order)
        assert (trust.trusted[-1], trust.certified) == (made, False)
        control = await coordinator.attach(epoch=7, audit=HEAD)
        assert (control.attached.epoch, control.attached.audit) == (7, HEAD)
        csr = await control.client.call(AGENT_RENEW, Nothing())
        issued = new.authority.issue(csr.csr, ARM)
        answer = Certificates(chain=issued.chain, authority=new.authority.certificate)
        await control.client.call(AGENT_CERTIFY, answer)
        # The coordinator shows a certificate of the new authority, and accepts only such ones.
        coordinator.authority = new.authority
        await coordinator.stop()
        await coordinator.start()
        control = await coordinator.attach(epoch=7, audit=HEAD)
        assert (control.attached.epoch, control.attached.audit) == (7, HEAD)
        trust = await control.client.call(AGENT_HANDOVER, finished(new.order))
        assert trust.trusted == [made]
        await agent.says("trusts only the new authority")
        await control.close()
