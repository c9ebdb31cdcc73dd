"""The configuration of the link process, made of a share."""

from __future__ import annotations

from typing import Any

import pytest

from dorad.control.errors import ControlError
from dorad.control.messages import Share
from dorad.daemon.sharelink import ShareLink
from dorad.dataflow.model import Channel, Link, NodeOutput
from dorad.link.config import MAX_MACHINES, decode


def link_to(count: int) -> Link:
    """Return the link of an output that so many machines receive."""
    source = NodeOutput("camera", "image")
    return Link(tuple(Channel(source, f"arm{number}") for number in range(count)), ())


def configured(link: Link, **share: Any) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    ShareLink("flow", Share(machine="base", placement={}, **share), sent.append).use(link)
    return sent


def test_as_many_machines_as_a_link_process_can_serve_are_configured() -> None:
    (found,) = configured(link_to(MAX_MACHINES), connect=["tls/router:7447"], router=True)
    config = decode(found)
    assert len(config.peers) == MAX_MACHINES
    assert config.router


def test_more_machines_are_refused_with_the_limit() -> None:
    with pytest.raises(ControlError) as caught:
        configured(link_to(MAX_MACHINES + 1))
    assert f"at most {MAX_MACHINES}" in caught.value.message
    assert "divide the dataflow" in str(caught.value.hint)
