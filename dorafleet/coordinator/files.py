"""The names of the files in a coordinator's folder."""

TOKEN = "token"  # noqa: S105 - the name of a file
"""The token of the coordinator's user."""

CA = "ca"
"""The folder of the fleet's authority."""

AUTHORITY = "authority.pem"
"""The certificate of the authority, while the coordinator listens with TLS."""

CERTIFICATE = "coordinator.pem"
"""Its own key and certificate."""
