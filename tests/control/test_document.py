"""The documents of the API: generated from the structs, correct and complete."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from dorad.control import messages as m
from dorad.control.limits import MAX_REPLY, MAX_REQUEST, Limits
from dorad.control.schema import document, field_docs
from dorad.control.server import Call
from dorafleet.coordinator.robotstreams import STREAMS, SUBSCRIPTIONS
from dorafleet.coordinator.service import LIMITS as COORDINATOR
from tests.docs.markdown import sections

from .reference import ASYNCAPI, PAGE, asyncapi, page
from .serving import DEADLINE_S, event_number, raw, serving

TEXT = PAGE.read_text(encoding="utf-8")
DOCUMENT = json.loads(ASYNCAPI.read_text(encoding="utf-8"))
UUID = "0197a3c2-5d1e-7c4f-9b8a-2f6d10e4c7aa"


def test_the_page_equals_the_structs() -> None:
    assert page(TEXT) == TEXT, "run `make generate`"


def test_the_asyncapi_document_equals_the_structs() -> None:
    assert ASYNCAPI.read_text(encoding="utf-8") == asyncapi(), "run `make generate`"


async def test_the_module_prints_the_asyncapi_document() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dorad.control.schema", stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert json.loads(printed) == document()


def test_every_error_code_is_explained() -> None:
    for code in get_args(m.ErrorCode):
        assert f"| `{code}` |" in TEXT


def test_the_limits_are_those_in_force() -> None:
    [section] = [found for found in sections(PAGE) if found.title == "Limits and deadlines"]
    assert section.page == PAGE
    part = TEXT[TEXT.index("## Limits") : TEXT.index("## A session")]
    shown = {int(number) for number in re.findall(r"\b\d+\b", part)}
    limits = Limits()
    for field in msgspec.structs.fields(limits):
        # Those of robots are on no page of the protocol; the page has `reply` in MiB, see below.
        elsewhere = ("opening", "reply", "accepted_each", "reserve", "retry_after")
        if field.name not in elsewhere and getattr(limits, field.name) is not None:
            assert int(getattr(limits, field.name)) in shown, field.name
    of_names = (
        COORDINATOR.connections,
        COORDINATOR.connections_each,
        COORDINATOR.streams_each,
        COORDINATOR.calls_each,
        COORDINATOR.reserve,
        STREAMS.each,
        SUBSCRIPTIONS.each,
    )
    assert set(of_names) <= shown
    assert limits.reply == MAX_REPLY
    assert {MAX_REQUEST >> 20, MAX_REPLY >> 20} <= shown


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def resolve(reference: str) -> Any:
    found: Any = DOCUMENT
    assert reference.startswith("#/")
    for part in reference[2:].split("/"):
        found = found[part]
    return resolve(found["$ref"]) if "$ref" in found else found


def test_it_has_the_keys_that_asyncapi_3_requires() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= DOCUMENT["info"].keys()
    assert {"host", "protocol"} <= DOCUMENT["servers"]["local"].keys()
    for operation in DOCUMENT["operations"].values():
        assert operation["action"] == "receive"
        assert {"channel", "messages", "reply"} <= operation.keys()
    for group in DOCUMENT["components"].values():
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in group)


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        assert resolve(reference)


def test_operations_use_messages_of_their_channel() -> None:
    for operation in DOCUMENT["operations"].values():
        used = [*operation["messages"], *operation["reply"]["messages"]]
        for message in used:
            assert message["$ref"].startswith("#/channels/control/messages/")


def test_every_method_is_an_operation() -> None:
    assert DOCUMENT["operations"].keys() == {*m.METHODS, "hello", "cancel"}


def test_every_message_and_schema_is_used() -> None:
    used = set(references(DOCUMENT))
    for kind in ("messages", "schemas"):
        for name in DOCUMENT["components"][kind]:
            assert f"#/components/{kind}/{name}" in used, name


def test_the_description_of_a_field_is_in_its_schema() -> None:
    [words] = [text for name, text in field_docs(m.Stop).items() if name == "force"]
    schema = DOCUMENT["components"]["schemas"]["Stop"]
    assert schema["properties"]["force"]["description"] == words
    assert schema["additionalProperties"] is False


def test_every_frame_that_is_shown_is_json() -> None:
    blocks = [block for found in sections(PAGE) for block in found.blocks]
    for block in blocks:
        if block.language == "json":
            for line in block.text.splitlines():
                json.loads(line)


def session() -> list[tuple[str, Any]]:
    [block] = [
        block for found in sections(PAGE) for block in found.blocks if block.language == "frames"
    ]
    lines = block.text.splitlines()
    return [(line[0], json.loads(line[2:])) for line in lines]


async def test_the_example_session_works(tmp_path: Path) -> None:
    started = asyncio.Event()
    shown = session()
    [event] = [frame["event"] for _, frame in shown if "event" in frame]

    async def list_(call: Call, params: m.Nothing) -> m.DataflowList:
        return m.DataflowList(dataflows=[])

    async def start(call: Call, params: m.Start) -> m.Started:
        started.set()
        return m.Started(uuid=UUID, name=params.name)

    async def watch(call: Call, params: m.Watch) -> AsyncIterator[m.Event]:
        await started.wait()
        yield msgspec.convert(event, m.Event)
        await asyncio.Event().wait()

    handlers = {
        "dataflow.list": list_,
        "dataflow.start": start,
        "watch": watch,
        "dataflow.stop": start,
    }
    async with serving(tmp_path, handlers) as path, raw(path, greet=False) as client:
        waiting: list[Any] = []
        for direction, frame in shown:
            if direction == ">":
                await client.send(frame)
                continue
            # Replies to different requests may come in any order.
            while frame not in waiting:
                got = await client.receive()
                waiting.append({**got, "welcome": "dorad 0.1.0"} if "welcome" in got else got)
            waiting.remove(frame)
        assert waiting == []


async def test_the_example_client_works(tmp_path: Path) -> None:
    [block] = [
        block for found in sections(PAGE) for block in found.blocks if block.language == "python"
    ]
    (tmp_path / "client.py").write_text(block.text)

    async def watch(call: Call, params: m.Watch) -> AsyncIterator[m.Event]:
        yield event_number(1)
        yield m.Event(at=2, dataflow="u", what="dataflow-ended")

    async with serving(tmp_path, {"watch": watch}) as path:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(tmp_path / "client.py"),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "DORA_SOCKET": str(path)},
        )
        async with asyncio.timeout(DEADLINE_S):
            printed, _ = await process.communicate()
    assert printed.decode().splitlines() == ["node-started None", "dataflow-ended None"]
    assert process.returncode == 0


@pytest.mark.parametrize("name", sorted(m.METHODS))
def test_every_method_has_a_section(name: str) -> None:
    assert f"\n### Method {name}\n" in TEXT
