"""What a robot and a coordinator send each other about the robot's first certificate."""

from __future__ import annotations

from dorad.control.messages.agent import Certificates
from dorad.control.messages.base import Struct
from dorad.control.messages.method import CallMethod


class EnrolSign(Struct):
    """Sign the certificate of a robot."""

    robot: str
    """Its id in the cluster file."""
    csr: str
    """A request for a certificate (PEM); only its key is used."""
    again: bool = False
    """Replace the certificate that the robot has, which is revoked. Not with a token."""


ENROL_SIGN = CallMethod(
    "enrol.sign", "enrolling", EnrolSign, Certificates, "Sign the certificate of a robot."
)
