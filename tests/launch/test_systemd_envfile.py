"""Environments of nodes in files that systemd reads."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dorad.launch.model import LaunchError
from dorad.launch.systemd.envfile import MAX_BYTES, EnvironmentFiles, environment_text

ODD = {
    "QUOTES": 'it\'s "quoted" and `run`',
    "DOLLARS": "$HOME ${HOME} $$",
    "BACKSLASHES": "a\\b\\\\c\\n\\",
    "LINES": "one\ntwo\n\n# three\n;four=4",
    "BLANKS": "  around  ",
    "TABS": "\t\r\x07",
    "EMPTY": "",
    "UMLAUT": "größer ≥ 🤖",
    "EQUALS": "a=b",
    "_9": "x",
}


def test_a_shell_reads_exactly_what_was_written() -> None:
    """systemd follows the rules of a shell's double quotes, so a shell can check them."""
    names = " ".join(ODD)
    script = f"set -a\n{environment_text(ODD).decode()}\nexec python3 -c '{_SHOW}' {names}"
    sh = shutil.which("sh")
    assert sh is not None
    done = subprocess.run([sh], input=script.encode(), capture_output=True, check=True)
    assert done.stdout.decode() == repr(ODD)


_SHOW = """
import os, sys
sys.stdout.buffer.write(repr({name: os.environ[name] for name in sys.argv[1:]}).encode())
"""


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("a.b", "hunter2", "name 'a.b'"),
        ("9A", "hunter2", "no digit first"),
        ("A\nB", "hunter2", "letters, digits"),
        ("A", "hunter2\ud800", "A is not valid text"),
        ("A", "hunter2\0", "A contains a NUL"),
        ("A", "hunter2" * MAX_BYTES, "A has .* at most 131071"),
    ],
)
def test_variables_that_systemd_cannot_pass_on_are_refused_without_showing_them(
    name: str, value: str, expected: str
) -> None:
    with pytest.raises(LaunchError) as refused:
        environment_text({name: value})
    assert re.search(expected, str(refused.value))
    assert "hunter2" not in str(refused.value)


def test_a_folder_that_cannot_be_written_fails_the_start_with_a_reason(tmp_path: Path) -> None:
    files = EnvironmentFiles(tmp_path / "environments")
    (tmp_path / "environments").rmdir()
    with pytest.raises(LaunchError, match="cannot be written"), files.file({"A": "b"}):
        raise AssertionError
