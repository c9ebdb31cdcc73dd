"""A session is closed, but Zenoh keeps a connection: ADDRESS, and the `tls` of both ends.

Ends when the other end has noticed. It runs in a separate process, because Zenoh's threads live as
long as their process.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import msgspec

from dorad.link.config import ChannelIn, ChannelOut, LinkConfig, Tls
from dorad.link.session import Session
from tests.harness.waiting import until
from tests.link.callbacks import as_queued


class _Forgetful:
    """A session of Zenoh that closes nothing."""

    def close(self) -> None:
        """Do nothing, as Zenoh with a connection that came at that moment."""


async def _main(address: str, alpha_tls: Mapping[str, Any], beta_tls: Mapping[str, Any]) -> None:
    out, into = ChannelOut("a/out", "beta", "x"), ChannelIn("a/out", "alpha", "out")
    sending = LinkConfig(
        *("flow", "alpha"), listen=[address], outgoing=[out], tls=msgspec.convert(alpha_tls, Tls)
    )
    receiving = LinkConfig(
        *("flow", "beta"), connect=[address], incoming=[into], tls=msgspec.convert(beta_tls, Tls)
    )
    alpha = Session(sending, 1, lambda _is_data: None, as_queued)
    with closing(Session(receiving, 2, lambda _is_data: None, as_queued)) as beta:
        await until(lambda: alpha.seen and beta.seen)
        session: Any = alpha._session
        alpha._session = _Forgetful()  # type: ignore[assignment]
        alpha.close()
        await until(lambda: not beta._ends)
        session.close()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])))
