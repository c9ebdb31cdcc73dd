"""`dora replay`: run a recorded dataflow with what some of its nodes have sent."""

from __future__ import annotations

import math
import os
import re
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dorad.cli.files import write_text
from dorad.cli.options import (
    LaunchCommand,
    env_option,
    shell_nodes_option,
    uv_option,
)
from dorad.cli.record_options import recordings_argument
from dorad.cli.reporting import print_note, print_warning
from dorad.dataflow.durations import parse_duration
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dorad.record.config import ReplayConfig
    from dorad.record.rewire import Plan
    from dorad.record.sources import Recording

MAX_NAMED = 5
"""Topics that a warning names."""

EPILOG = """\b
Examples:
  dora replay day.mcap                              all recorded nodes are replayed
  dora replay day.mcap --speed 4 --start 10s --end 1m
  dora replay day.mcap --live detector              this node runs, and gets recorded inputs
  dora replay day.mcap --replace detector=new.py --assert --step
  dora replay x.drec                                a recording of dora 1.x

\b
The messages come in the order in which they were sent, at any speed. The programs of the
nodes that run are those of the recorded dataflow: replay only recordings that you trust.
With --assert, the exit code is 1 at the first message of a running node that differs from the
recorded one. On a terminal: space pauses, s sends one message, + and - change the speed.
"""


def finite(context: click.Context, option: click.Parameter, value: float) -> float:
    """Refuse infinity and NaN, which click takes as numbers. Raises click.BadParameter."""
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a number", context, option)
    return value


@click.command("replay", cls=LaunchCommand, epilog=EPILOG)
@recordings_argument
@click.option(
    "--speed",
    type=click.FloatRange(min=0),
    callback=finite,
    default=1.0,
    metavar="X",
    help="How many times as fast; 0 is as fast as the nodes can.",
)
@click.option("--start", metavar="TIME", help="Begin there: 90s after the start, or a date.")
@click.option("--end", metavar="TIME", help="End there; like --start.")
@click.option("--loop", is_flag=True, help="Begin again at the end, until Ctrl-C.")
@click.option("--pause", "paused", is_flag=True, help="Wait for a key before the first message.")
@click.option(
    "--step", is_flag=True, help="After each message, wait until all nodes have handled it."
)
@click.option(
    "--topics", metavar="A/B,...", multiple=True, help="Send only these topics (`node/output`)."
)
@click.option(
    "--replace",
    metavar="NODE[=PATH],...",
    multiple=True,
    help="NODE: replay only these nodes. NODE=PATH: run this node, with another program.",
)
@click.option("--live", metavar="NODE,...", multiple=True, help="Run these nodes.")
@click.option(
    "--assert", "check", is_flag=True, help="Compare what running nodes send with the recording."
)
@click.option(
    "--tolerance",
    metavar="[TOPIC=]X",
    multiple=True,
    help="Numbers may differ by X, absolute or relative.",
)
@click.option(
    "--ignore",
    metavar="TOPIC[:PATH]",
    multiple=True,
    help="Do not compare this: `log/*`, `*:metadata.seq`.",
)
@click.option(
    "--clock",
    type=click.Choice(["now", "recorded"]),
    default="now",
    help="The time that messages carry.",
)
@click.option(
    "--dataflow",
    "dataflow_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Use this dataflow instead of the recorded one.",
)
@click.option(
    "--output-yaml",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the dataflow with its replayer there; do not run it.",
)
@uv_option
@shell_nodes_option
@env_option
def replay(
    files: tuple[Path, ...],
    *,
    speed: float,
    start: str | None,
    end: str | None,
    loop: bool,
    paused: bool,
    step: bool,
    topics: tuple[str, ...],
    replace: tuple[str, ...],
    live: tuple[str, ...],
    check: bool,
    tolerance: tuple[str, ...],
    ignore: tuple[str, ...],
    clock: str,
    dataflow_file: Path | None,
    output_yaml: Path | None,
    uv: bool,
    allow_shell_nodes: bool,
    env: Mapping[str, str],
) -> int:
    """Send the messages of the recordings FILE... again, to the nodes that received them."""
    from dorad.cli.replay_run import run_replay
    from dorad.dataflow.expand import flat_yaml
    from dorad.dataflow.load import from_descriptor
    from dorad.dataflow.recording import topics_in
    from dorad.record.config import ReplayConfig
    from dorad.record.control import socket_of
    from dorad.record.player import topics_of
    from dorad.record.sources import open_all

    if loop and check:
        raise click.UsageError("--assert compares one pass: leave out --loop")
    if (tolerance or ignore) and not check:
        raise click.UsageError("--tolerance and --ignore go with --assert")
    wanted, programs = _replacements(replace)
    with ExitStack() as stack:
        recordings = open_all(files, stack)
        first, last = parse_range(start, end, recordings)
        config = ReplayConfig(
            files=[str(file.absolute()) for file in files],
            topics=[],
            speed=speed,
            start=first,
            end=last,
            loop=loop,
            paused=paused,
            step=step,
            recorded_clock=clock == "recorded",
            ignore=list(ignore),
            control=str(socket_of(os.getpid())) if output_yaml is None else "",
            **tolerances_of(tolerance),
        )
        known = topics_of(recordings)
        chosen = name_list(topics)
        _check_topics(chosen, known)
        descriptor, path = _descriptor(recordings, dataflow_file)
    rewired, config, plan = plan_replay(
        descriptor,
        known,
        config,
        wanted=wanted,
        programs=programs,
        live=[*name_list(live), *programs],
        check=check,
        topics=chosen or None,
    )
    dataflow = from_descriptor(rewired, path=path)
    if output_yaml is not None:
        write_text(output_yaml, flat_yaml(dataflow))
        click.echo(f"wrote {output_yaml}; run it with `dora run {output_yaml}`")
        return 0
    running = ", ".join(plan.live) or "none"
    print_note(f"replayed nodes: {', '.join(plan.replayed)}; running nodes: {running}")
    for topic in plan.silent:
        print_warning(f"nothing is sent on {topic}: it is not in the recording, or left out")
    _warn_of_gone(chosen or list(known), topics_in(from_descriptor(descriptor, path=path)))
    return run_replay(dataflow, config, uv=uv, allow_shell=allow_shell_nodes, env=env)


def _warn_of_gone(recorded: Sequence[str], outputs: Sequence[str]) -> None:
    """Name the recorded topics that a changed dataflow has not."""
    gone = [each for each in recorded if each not in outputs]
    if gone:
        names = ", ".join(gone[:MAX_NAMED]) + (", ..." if len(gone) > MAX_NAMED else "")
        print_warning(visible(f"recorded, but not an output of this dataflow: {names}"))


def plan_replay(
    descriptor: Mapping[str, Any],
    known: Mapping[str, int],
    config: ReplayConfig,
    *,
    wanted: Sequence[str],
    programs: Mapping[str, str],
    live: Sequence[str],
    check: bool,
    topics: Sequence[str] | None,
) -> tuple[dict[str, Any], ReplayConfig, Plan]:
    """Return the descriptor of the replay, the configuration of its replayer, and what it does.

    Raises:
        ReplayError: a name is unknown, or there is nothing to replay or to compare.
    """
    import shlex

    import msgspec

    from dorad.record.check import rules_of
    from dorad.record.config import encode
    from dorad.record.rewire import check_comparison, choose_replayed, rewire, set_arguments

    replayed = choose_replayed(
        descriptor, known, wanted=wanted, live=live, sources_only=check and not wanted
    )
    rewired, plan = rewire(
        descriptor,
        known,
        replayed,
        programs=programs,
        checks=check,
        steps=config.step,
        lossless=config.speed == 0,
        topics=topics,
    )
    if check:
        check_comparison(plan, rules_of(config).ignores)
    config = msgspec.structs.replace(
        config, topics=list(plan.topics), ticks=dict(plan.ticks), checked=list(plan.checked)
    )
    set_arguments(rewired, shlex.join(("--config", encode(config))))
    return rewired, config, plan


def _descriptor(
    recordings: Sequence[Recording], given: Path | None
) -> tuple[Mapping[str, Any], Path]:
    """Return the dataflow to replay, and the path of its file, which may not exist."""
    if given is not None:
        from dorad.cli.files import load_dataflow

        return load_dataflow(given).descriptor, given
    from dorad.record.embedded import embedded_dataflow

    return embedded_dataflow(recordings)


def name_list(given: Sequence[str]) -> list[str]:
    """Return the names in options that take several, separated by commas."""
    return [name for text in given for name in text.split(",") if name]


def _replacements(given: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    wanted, programs = [], {}
    for text in name_list(given):
        name, equals, path = text.partition("=")
        if not equals:
            wanted.append(name)
        elif not name or not path:
            raise click.UsageError(f"'{text}' is not NODE=PATH")
        else:
            found = Path(path)
            programs[name] = str(found.absolute()) if found.exists() else path
    return wanted, programs


def _check_topics(wanted: Sequence[str], known: Mapping[str, int]) -> None:
    from dorad.dataflow.nearest import did_you_mean

    for topic in wanted:
        if topic not in known:
            hint = did_you_mean(topic, list(known)) or f"it has: {', '.join(known) or 'none'}"
            raise click.ClickException(f"the recording has no topic {topic!r} ({hint})")


def parse_range(
    start: str | None, end: str | None, recordings: Sequence[Recording]
) -> tuple[int | None, int | None]:
    """Return the times of `--start` and `--end` in ns since 1970, None for those not given.

    Raises:
        click.UsageError: one is not a time, or the end is not after the start.
        click.ClickException: the recordings have no message between them.
    """
    begin = min(each.start for each in recordings)
    last = max(each.end for each in recordings)
    first = parse_moment(start, begin, "--start")
    final = parse_moment(end, begin, "--end")
    if first is not None and final is not None and final <= first:
        raise click.UsageError(f"--end {end} is not after --start {start}")
    if (first is not None and first > last) or (final is not None and final <= begin):
        raise click.ClickException(
            f"there is no message in this range: the recording begins {_date(begin)} "
            f"and has {(last - begin) / 1e9:.3f} s"
        )
    return first, final


def _date(moment: int) -> str:
    return datetime.fromtimestamp(moment / 1e9).isoformat(" ", "milliseconds")


_RELATIVE = re.compile(r"\+?[\d.]")


def parse_moment(text: str | None, begin: int, option: str) -> int | None:
    """Return a time in ns since 1970: a duration counts from `begin`.

    Raises:
        click.UsageError: the text of `option` is neither.
    """
    if text is None:
        return None
    try:
        if _RELATIVE.match(text) and "T" not in text and "-" not in text:
            return begin + int(parse_duration(text.removeprefix("+")) * 1e9)
        return int(datetime.fromisoformat(text).timestamp() * 1e9)
    except ValueError:
        raise click.UsageError(
            f"{option} '{text}' is neither a time after the start (90s) nor a date "
            "(2026-05-01T12:00:00)"
        ) from None


def tolerances_of(given: Sequence[str]) -> dict[str, Any]:
    """Return `tolerance` and `tolerances` in the options. Raises click.UsageError."""
    found: dict[str, Any] = {"tolerance": 0.0, "tolerances": {}}
    for text in given:
        topic, equals, number = text.rpartition("=")
        try:
            value = float(number)
            if not 0 <= value < float("inf"):
                raise ValueError
        except ValueError:
            raise click.UsageError(f"--tolerance '{text}' is not X or TOPIC=X") from None
        if equals:
            found["tolerances"][topic] = value
        else:
            found["tolerance"] = value
    return found
