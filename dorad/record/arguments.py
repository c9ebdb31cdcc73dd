"""The arguments of `dora-record-node`, and how a dataflow gets the node that records it."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dorad.dataflow.errors import TextError
from dorad.dataflow.model import RECORDER
from dorad.dataflow.sizes import parse_size
from dorad.record.chunk import COMPRESSIONS
from dorad.record.settings import MEMORY, QUEUE_SIZE, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.dataflow.model import Dataflow

NODE_ID = "__dora_record__"
"""The id of the recorder, as in dora 1.x."""

LOGS_INPUT = "dora___logs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the recorder node."""
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    parser.add_argument("--compression", choices=COMPRESSIONS, default="auto")
    parser.add_argument("--split-size", type=_size, metavar="SIZE", help="size of one file")
    parser.add_argument("--split-time", type=_seconds, metavar="SECONDS", help="time of one file")
    parser.add_argument("--max-size", type=_size, metavar="SIZE", help="stop at this size")
    parser.add_argument("--duration", type=_seconds, metavar="SECONDS", help="stop after this time")
    parser.add_argument("--min-free", type=_size, metavar="SIZE", help="disk space to leave free")
    parser.add_argument("--memory", type=_size, default=MEMORY, metavar="SIZE")


def settings_of(given: argparse.Namespace) -> Settings:
    """Return the settings in parsed arguments."""
    return Settings(
        path=given.output,
        compression=given.compression,
        split_bytes=given.split_size,
        split_s=given.split_time,
        max_bytes=given.max_size,
        duration_s=given.duration,
        min_free=given.min_free,
        memory=given.memory,
    )


def arguments_of(settings: Settings) -> str:
    """Return the arguments of the recorder node for these settings, quoted for a shell."""
    words = ["--output", str(settings.path), "--compression", settings.compression]
    for flag, value in (
        ("--split-size", settings.split_bytes),
        ("--split-time", settings.split_s),
        ("--max-size", settings.max_bytes),
        ("--duration", settings.duration_s),
        ("--min-free", settings.min_free),
    ):
        if value is not None:
            words += [flag, f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join(words)


def topics_in(dataflow: Dataflow) -> list[str]:
    """Return all topics of a dataflow, in the order of the file."""
    return [
        f"{node.id}/{output}"
        for node in dataflow.nodes
        for output in node.all_outputs
        if node.link is None
    ]


def input_name(topic: str) -> str:
    """Return the input of the recorder for a topic, as in dora 1.x."""
    node, _, output = topic.partition("/")
    return f"{node}___{output}"


def recorder_inputs(topics: Sequence[str], queue_size: int = QUEUE_SIZE) -> dict[str, Any]:
    """Return the inputs of the recorder, as in a dataflow file."""
    inputs: dict[str, Any] = {
        input_name(topic): {"source": topic, "queue_size": queue_size} for topic in topics
    }
    inputs[LOGS_INPUT] = {"source": "dora/logs", "queue_size": max(queue_size, QUEUE_SIZE)}
    return inputs


def recorder_node(
    topics: Sequence[str], settings: Settings, queue_size: int = QUEUE_SIZE
) -> dict[str, Any]:
    """Return the entry of `nodes` that records `topics`."""
    return {
        "id": NODE_ID,
        "path": RECORDER,
        "args": arguments_of(settings),
        "inputs": recorder_inputs(topics, queue_size),
        "spin_us": 0,
    }


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except TextError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _seconds(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value
