"""Names of signers: those of their keys, not of the machine where they are trusted."""

import click
import pytest

from dorafleet.cli.releasetrust import signer_line
from dorafleet.release.signingkey import SigningKey


@pytest.mark.parametrize(
    ("comment", "name"),
    [
        ("ada@example.org", "ada@example.org"),
        ("Ada Lovelace (laptop)", "Ada-Lovelace-laptop"),
        ("ключ ada", "ada"),
        ("x" * 500, "x" * 200),
    ],
)
def test_a_signer_has_the_name_of_the_comment_of_its_key(comment, name):
    line = signer_line(SigningKey("ssh-ed25519 AAAA", "SHA256:x", comment))
    assert line.split()[0] == name


def test_a_name_that_is_given_is_checked():
    key = SigningKey("ssh-ed25519 AAAA", "SHA256:x", "c")
    assert signer_line(key, "bob").startswith("bob ")
    with pytest.raises(click.UsageError, match="cannot be the name of a signer"):
        signer_line(key, "bob smith")
