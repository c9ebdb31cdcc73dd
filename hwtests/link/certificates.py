"""Certificates for the measurements, made with openssl."""

import subprocess
from pathlib import Path

MACHINES = ("one", "two")
_EC = "ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"


def issue(folder: Path) -> dict[str, dict[str, str]]:
    """Return the `tls` section of the configuration of each machine; made once a folder."""
    if not (folder / "ca.pem").exists():
        _make(folder)
    return {
        name: {
            "ca": str(folder / "ca.pem"),
            "certificate": str(folder / f"{name}.pem"),
            "key": str(folder / f"{name}.key"),
        }
        for name in MACHINES
    }


def _make(folder: Path) -> None:
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\n")
    sign = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions"
    commands = []
    for name in MACHINES:
        request = f"req -newkey {_EC} -subj /CN={name} -keyout {name}.key -out {name}.csr"
        commands += [request, f"x509 -req -in {name}.csr {sign} -out {name}.pem"]
    authority = f"req -x509 -newkey {_EC} -days 2 -subj /CN=ca -keyout ca.key -out ca.pem"
    for command in (authority, *commands):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
