"""The configuration of notifications, and the files with its secrets."""

import os

import pytest

from dorafleet.coordinator.settings import Settings, SettingsError, load
from dorafleet.notify.settings import Mail, Webhook

SECRET = "xoxb-secret"
MAIL = """\
[alerts.mail]
server = "mail.example.com"
from = "fleet@example.com"
to = ["ann@example.com", "bob@example.com"]
"""


@pytest.fixture
def write(tmp_path):
    def write(text, mode=0o600, **files):
        for name, content in files.items():
            (tmp_path / name).write_text(content)
            (tmp_path / name).chmod(0o600)
        file = tmp_path / "dorafleet.toml"
        file.write_text(text)
        file.chmod(mode)
        return file

    return write


def problems(file):
    with pytest.raises(SettingsError) as caught:
        load(file)
    text = "\n".join(caught.value.lines)
    assert SECRET not in text
    return text


def test_without_a_file_nothing_is_sent(tmp_path):
    assert load(tmp_path / "dorafleet.toml") == Settings()


def test_all_keys_are_read_and_secrets_come_from_their_files(write, tmp_path):
    (tmp_path / "ca.pem").write_text("x")
    file = write(
        'alerts.severity = "fail"\nalerts.webhook_file = "hook"\nalerts.webhook_ca = "ca.pem"\n'
        'alerts.webhook_token_file = "token"\n'
        + MAIL
        + 'encryption = "tls"\nuser = "fleet"\npassword_file = "password"\n',
        mode=0o644,  # it has no secret in it
        hook=f"https://chat.example:8443/{SECRET}\n",
        token="t0k\n",
        password=" pa ss\n",
    )
    found = load(file).alerts
    assert found.severity == "fail"
    url = f"https://chat.example:8443/{SECRET}"
    assert found.webhook == Webhook(url, "t0k", tmp_path / "ca.pem")
    assert found.webhook.place == "https://chat.example:8443"
    people = ("ann@example.com", "bob@example.com")
    assert found.mail == Mail(
        "mail.example.com", 465, "tls", "fleet@example.com", people, "fleet", "pa ss"
    )
    for secret in (SECRET, "t0k", "pa ss"):
        assert secret not in repr(found)


def test_a_secret_that_others_may_read_is_refused_with_the_command_that_mends_it(write, tmp_path):
    open_file = write(f'[alerts]\nwebhook = "https://chat.example/{SECRET}"\n', mode=0o644)
    assert "others may use the secret in" in problems(open_file)
    assert "chmod 640" in problems(open_file)
    open_file.chmod(0o640)
    assert load(open_file).alerts.webhook
    file = write('[alerts]\nwebhook_file = "hook"\n', hook=f"https://chat.example/{SECRET}")
    (tmp_path / "hook").chmod(0o644)
    assert "others may use the secret in" in problems(file)
    password = write(
        MAIL + 'user = "fleet"\npassword_file = "password"\n', password=SECRET, mode=0o644
    )
    (tmp_path / "password").chmod(0o604)
    assert "others may use the secret in" in problems(password)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[alert]\nwebhook = "x"', "unknown key `alert`"),
        ('[alerts]\nwebhok = "x"', "did you mean `webhook`"),
        ('[alerts]\nwebhook = "ftp://x/"', "must be a URL with http or https"),
        (f'[alerts]\nwebhook = "https://u:{SECRET}@x/"', "cannot have a user in it"),
        (f'[alerts]\nwebhook = "https://x/a {SECRET}"', "must be a URL of ASCII without blanks"),
        ('[alerts]\nwebhook = "https://x:99999/"', "must be a URL with http or https"),
        ('[alerts]\nwebhook = "https://[::1/"', "must be a URL with http or https"),
        ("[alerts]\nwebhook = 5", "must be a URL"),
        ('[alerts]\nwebhook = "http://x/"\nwebhook_file = "h"', "give only one of"),
        ('[alerts]\nwebhook_file = "missing"', "missing cannot be read: No such file"),
        ('[alerts]\nwebhook_token_file = "h"', "needs `webhook` or `webhook_file`"),
        ('[alerts]\nwebhook = "http://x/"\nwebhook_ca = "gone"', "gone cannot be read"),
        ('[alerts]\nseverity = "bad"', "must be one of warn, fail"),
        ("[alerts.mail]\n", "needs `server`"),
        (MAIL.replace('["ann@example.com", "bob@example.com"]', "[]"), "needs `to`"),
        (MAIL.replace("ann@example.com", "ann@x\\r\\nBcc: eve@x"), "must be a mail address"),
        (MAIL.replace("fleet@example.com", "Fleet <f@x>"), "must be a mail address"),
        (MAIL.replace("mail.example.com", "smtp://mail"), "must be the name or address"),
        (MAIL + 'user = "fleet"', "`user` and `password_file` need each other"),
        (MAIL + "port = 0", "must be a whole number from 1 to 65535"),
        (
            MAIL + 'encryption = "none"\nuser = "f"\npassword_file = "h"',
            "a password leaves this machine only with TLS",
        ),
    ],
)
def test_mistakes_are_errors_that_name_the_key(write, text, words):
    assert words in problems(write(text, h="http://y/"))


def test_what_is_no_file_is_refused_at_once(tmp_path, write):
    os.mkfifo(tmp_path / "dorafleet.toml")
    assert "is not a regular file" in problems(tmp_path / "dorafleet.toml")
    (tmp_path / "dorafleet.toml").unlink()
    file = write('[alerts]\nwebhook_file = "fifo"\n')
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert "is not a regular file" in problems(file)
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    assert "no such file" in problems(tmp_path / "dangling")
