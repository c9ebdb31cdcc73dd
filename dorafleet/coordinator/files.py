"""The names of the files in a coordinator's folder.

The token of the coordinator's user, and the certificate of the authority while it listens with TLS,
are those that its clients on this machine look for.
"""

from dorad.control.choosing import AUTHORITY, TOKEN

__all__ = ["AUTHORITY", "CA", "CERTIFICATE", "TOKEN"]

CA = "ca"
"""The folder of the fleet's authority."""

CERTIFICATE = "coordinator.pem"
"""Its own key and certificate."""
