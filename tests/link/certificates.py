"""A certificate authority for tests, made with openssl."""

import subprocess
from pathlib import Path


class Authority:
    """Issues certificates for 127.0.0.1; its files are in a separate folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
            "-subj /CN=authority -keyout ca.key -out ca.pem"
        )

    def issue(
        self, machine: str, subject: str = "IP:127.0.0.1", *, expired: bool = False
    ) -> dict[str, str]:
        """Return the files of a machine; its certificate is for the alternative name `subject`."""
        if not (self._folder / f"{machine}.pem").exists():
            life = (
                "-not_before 20200101000000Z -not_after 20200102000000Z" if expired else "-days 2"
            )
            extensions = f"subjectAltName={subject}\nextendedKeyUsage=serverAuth,clientAuth\n"
            (self._folder / "extensions").write_text(extensions)
            self._openssl(
                "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "
                f"-subj /CN={machine} -keyout {machine}.key -out {machine}.csr"
            )
            self._openssl(
                f"x509 -req -in {machine}.csr -CA ca.pem -CAkey ca.key -CAcreateserial {life} "
                f"-extfile extensions -out {machine}.pem"
            )
        files = {"ca": "ca.pem", "certificate": f"{machine}.pem", "key": f"{machine}.key"}
        return {name: str(self._folder / file) for name, file in files.items()}

    def issue_chain(self, machine: str, length: int) -> dict[str, str]:
        """Return the files of a machine; with its certificate, so many others are sent."""
        files = self.issue(machine)
        with Path(files["certificate"]).open("a") as chain:
            chain.write(Path(files["ca"]).read_text() * length)
        return files

    def _openssl(self, words: str) -> None:
        subprocess.run(
            ["openssl", *words.split()], cwd=self._folder, check=True, capture_output=True
        )
