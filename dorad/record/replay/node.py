"""Entry point of the node that sends recorded messages: `dora-replay-node`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from dorad.node import protocol
from dorad.phrases import count_text
from dorad.problems import ProblemError
from dorad.record.replay.checker import Checker, DifferentError
from dorad.record.replay.config import decode
from dorad.record.replay.control import Control, RestlessError
from dorad.record.replay.player import Player, StoppedError
from dorad.record.sources import open_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.record.replay.config import ReplayConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay; return 0 if everything was sent, and equal where it is compared."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s: %(message)s")
    parser = argparse.ArgumentParser(
        prog="dora-replay-node",
        description="Send recorded messages; started by dora as part of a dataflow.",
    )
    parser.add_argument("--config", required=True, help="what to replay, as JSON")
    given = parser.parse_args(arguments)
    if not os.environ.get(protocol.CONFIG):
        parser.error("dora starts this program; replay with `dora replay FILE`")
    try:
        config = decode(given.config)
    except ValueError as error:
        parser.error(f"--config is not valid: {error}")
    try:
        return _replay(config)
    except DifferentError as error:
        print(f"different: {error}", file=sys.stderr)
        return 1
    except (ProblemError, RestlessError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _replay(config: ReplayConfig) -> int:
    from dorad.node.node import Node

    with ExitStack() as stack:
        recordings = open_all([Path(name) for name in config.files], stack)
        for each in recordings:
            each.rename(config.remap)
        control = Control(config.control)
        checker = Checker(recordings, config) if config.checked else None
        node = Node()
        player = Player(node, recordings, config, control, checker)
        try:
            played = player.play()
        except StoppedError:
            if checker is not None:
                text = "error: the replay was stopped before everything was compared"
                print(text, file=sys.stderr)
                return 1
            print("the replay was stopped", flush=True)
            return 0
        speed = "" if config.step or not played.speed else f", at {played.speed:.2f} x"
        print(f"replayed {played.messages} messages in {played.seconds:.1f} s{speed}", flush=True)
        if checker is not None:
            compared = checker.finish()
            if not compared:
                text = "error: no message was compared: the range has none of a node that runs"
                print(text, file=sys.stderr)
                return 1
            print(f"{compared} messages are equal", flush=True)
        for each in recordings:
            for missing in each.damage.missing():
                print(f"error: {each.path} is damaged: missing {missing}", file=sys.stderr)
        if any(each.damage for each in recordings):
            return 1
        for topic, count in sorted(played.skipped.items()):
            what = count_text(count, "message")
            print(f"error: {what} of {topic} could not be decoded", file=sys.stderr)
        if played.skipped:
            return 1
        return 0 if played.messages or checker is not None else _nothing()


def _nothing() -> int:
    print("error: there was no message to replay", file=sys.stderr)
    return 1


def run() -> None:
    """Run `main` and exit with its code."""
    sys.exit(main())


if __name__ == "__main__":
    run()
