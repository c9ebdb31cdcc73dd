"""The configuration of the link process, made of a share."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from dorad.control.errors import ControlError
from dorad.control.messages import Share, Update
from dorad.daemon.api.shares import ShareMethods
from dorad.daemon.broker.broker import Broker
from dorad.daemon.record import Record
from dorad.daemon.registry import Registry
from dorad.daemon.rules.links import Links
from dorad.daemon.run import DataflowRun
from dorad.daemon.sharelink import ShareLink
from dorad.daemon.state import Options
from dorad.dataflow.model import Channel, Link, NodeOutput
from dorad.link.config import MAX_MACHINES, decode
from tests.daemon.flows import dataflow


def link_to(count: int) -> Link:
    """Return the link of an output that so many machines receive."""
    source = NodeOutput("camera", "image")
    return Link(tuple(Channel(source, f"arm{number}") for number in range(count)), ())


def configured(link: Link, **share: Any) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    broker = cast("Broker", SimpleNamespace(set_link=sent.append))
    ShareLink("flow", Share(machine="base", placement={}, **share), Links(), broker).use(link)
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


async def test_a_changed_description_is_stored_with_its_placement() -> None:
    """Stored between the two, a daemon's successor would end the nodes that had just come."""
    share = Share(machine="alpha", placement={"source": "alpha"})
    record = SimpleNamespace(row=SimpleNamespace(options=Options()), uuid="uuid")
    described: list[Share | None] = []
    run = SimpleNamespace(
        dataflow=dataflow(),
        link=SimpleNamespace(renew=str, of=lambda _: None, use=str),
        commands=SimpleNamespace(describe=lambda _: described.append(record.row.options.share)),
    )
    wanted = Update(dataflow="uuid", descriptor={}, share=share)
    methods = ShareMethods(cast("Registry", None))
    await methods._change(cast("Record", record), cast("DataflowRun", run), dataflow(), wanted)
    assert described == [share]
