"""`dora replay`: run a recorded dataflow with what some of its nodes have sent."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dorad.cli.options import Launch, env_option, shell_nodes_option, uv_option
from dorad.cli.record_options import (
    check_topics,
    check_whole,
    names_in,
    recordings_argument,
)
from dorad.cli.record_values import (
    finite,
    parse_range,
    remapped,
    replacements,
    tolerances_of,
)
from dorad.commandline.files import write_text
from dorad.commandline.reports import print_note, print_warning
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dorad.dataflow.model import Dataflow
    from dorad.record.replay.config import ReplayConfig
    from dorad.record.replay.plan import ReplayPlan
    from dorad.record.sources import Recording

MAX_NAMED = 5
"""Topics that a warning names."""

EPILOG = """\b
Examples:
  dora replay day.mcap                              all recorded nodes are replayed
  dora replay day.mcap --speed 4 --start 10s --end 1m
  dora replay day.mcap --live detector              this node runs, and gets recorded inputs
  dora replay day.mcap --replace detector=new.py --assert --step
  dora replay day.mcap --remap camera/image=left/image
  dora replay x.drec                                a recording of dora 1.x
  dora replay drive.mcap --dataflow flow.yml        a recording of ROS 2

\b
The messages come in the order in which they were sent, at any speed. The programs of the
nodes that run are those of the recorded dataflow: replay only recordings that you trust.
With --assert, the exit code is 1 at the first message of a running node that differs from the
recorded one; a damaged recording is refused. Without it, damaged messages are left out and named at
the end, and the exit code is 1.
On a terminal: space pauses, s sends one message, + and - change the speed.
"""


@click.command("replay", epilog=EPILOG)
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
    "--step", is_flag=True, help="Run one node at a time, so that each replay is the same."
)
@click.option(
    "--topics", metavar="A/B,...", multiple=True, help="Send only these topics (`node/output`)."
)
@click.option(
    "--remap",
    metavar="A/X=B/Y,...",
    multiple=True,
    help="Send the messages of the recorded topic A/X as B/Y. Other options take the new names.",
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
    help="Do not compare this: `log/*`, `*:metadata.seq`, `arm/pose:data[3]`.",
)
@click.option(
    "--clock",
    type=click.Choice(["now", "recorded"]),
    default="now",
    help="The time that messages carry.",
)
@click.option("--ros-clock", is_flag=True, help="Publish the recorded time on /clock of ROS 2.")
@click.option(
    "--dataflow",
    "dataflow_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Use this dataflow instead of the recorded one.",
)
@click.option(
    "--record",
    "record",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Record what running nodes send.",
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
    remap: tuple[str, ...],
    replace: tuple[str, ...],
    live: tuple[str, ...],
    check: bool,
    tolerance: tuple[str, ...],
    ignore: tuple[str, ...],
    clock: str,
    ros_clock: bool,
    dataflow_file: Path | None,
    record: Path | None,
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
    from dorad.record.replay.config import ReplayConfig
    from dorad.record.replay.control import socket_of
    from dorad.record.rostopics import replayed_topics
    from dorad.record.sources import open_all, topics_of

    if loop and check:
        raise click.UsageError("--assert compares one pass: leave out --loop")
    if ros_clock and step:
        raise click.UsageError("--ros-clock cannot follow --step: nodes of ROS 2 are not stepped")
    if (tolerance or ignore) and not check:
        raise click.UsageError("--tolerance and --ignore go with --assert")
    wanted, programs = replacements(replace)
    with ExitStack() as stack:
        recordings = open_all(files, stack)
        first, last = parse_range(start, end, recordings)
        descriptor, path = _descriptor(recordings, dataflow_file)
        flow = from_descriptor(descriptor, path=path)
        renamed = remapped(remap, topics_of(recordings))
        of_ros = replayed_topics(flow, recordings, renamed)
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
            ros_clock=ros_clock,
            ignore=list(ignore),
            remap={**of_ros.names, **renamed},
            control=str(socket_of(os.getpid())) if output_yaml is None else "",
            **tolerances_of(tolerance),
        )
        for each in recordings:
            each.rename(config.remap)
        known = topics_of(recordings)
        chosen = names_in(topics)
        check_topics(chosen, known)
        if check and check_whole(recordings):
            raise click.ClickException("a damaged recording is not compared: leave out --assert")
        for each in recordings:
            _warn_of_drops(each)
    outputs = topics_in(flow)
    check_topics(config.remap.values(), outputs, "dataflow")
    rewired, config, plan = plan_replay(
        descriptor,
        known,
        config,
        wanted=wanted,
        programs=programs,
        live=[*names_in(live), *programs],
        check=check,
        topics=chosen or None,
        aliases=of_ros.aliases,
    )
    dataflow = from_descriptor(rewired, path=path)
    if record is not None:
        dataflow = _recorded(dataflow, record)
    if output_yaml is not None:
        write_text(output_yaml, flat_yaml(dataflow))
        click.echo(f"wrote {output_yaml}; run it with `dora run {output_yaml}`")
        return 0
    running = ", ".join(plan.live) or "none"
    replayed = ", ".join(plan.replayed) or "none"
    print_note(f"replayed nodes: {replayed}; running nodes: {running}")
    for topic in plan.silent:
        print_warning(f"nothing is sent on {topic}: it is not in the recording, or left out")
    _warn_of_gone(chosen or list(known), outputs)
    launch = Launch(uv, allow_shell_nodes, env, finish_flag=True)
    return run_replay(dataflow, config, launch, plan.endless)


def _recorded(dataflow: Dataflow, path: Path) -> Dataflow:
    """Return a dataflow with a recorder of all nodes but the replayer."""
    from dorad.cli.record_options import refuse_existing
    from dorad.cli.record_start import with_recorder
    from dorad.dataflow.recording import topics_in
    from dorad.dataflow.settings import RECORD_QUEUE_SIZE
    from dorad.record.recorder.settings import Settings
    from dorad.record.replay.plan import REPLAYER

    settings = Settings(path=path.absolute())
    refuse_existing(settings)
    topics = [each for each in topics_in(dataflow) if not each.startswith(f"{REPLAYER}/")]
    if not topics:
        raise click.ClickException("--record finds no node that runs and has outputs")
    return with_recorder(dataflow, topics, settings, RECORD_QUEUE_SIZE)


def _warn_of_drops(recording: Recording) -> None:
    """Say that the recorder itself had no complete recording."""
    from dorad.record.damage import dropped_in

    if recording.status in ("COMPLETE", "FOREIGN", "RECOVERED"):
        return
    dropped = dropped_in(recording.metadata)
    named = [f"{count} dropped on {topic}" for topic, count in dropped.items()]
    more = ["..."] if len(named) > MAX_NAMED else []
    details = f": {', '.join((*named[:MAX_NAMED], *more))}" if named else ""
    print_warning(visible(f"{recording.path} is {recording.status}{details}"))


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
    aliases: Mapping[str, str] | None = None,
) -> tuple[dict[str, Any], ReplayConfig, ReplayPlan]:
    """Return the descriptor of the replay, the configuration of its replayer, and what it does.

    Raises:
        ReplayError: a name is unknown, or there is nothing to replay or to compare.
    """
    import shlex

    import msgspec

    from dorad.record.replay.checker import rules_of
    from dorad.record.replay.config import encode
    from dorad.record.replay.plan import check_comparison, choose_replayed, rewire, set_arguments

    # A node whose topics got other names is not to run, either.
    replayed = choose_replayed(
        descriptor,
        (*known, *config.remap),
        wanted=wanted,
        live=live,
        sources_only=check and not wanted,
        steps=config.step,
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
        aliases=aliases,
        ros_clock=config.ros_clock,
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
        from dorad.commandline.files import load_dataflow

        return load_dataflow(given).descriptor, given
    from dorad.record.embedded import embedded_dataflow

    return embedded_dataflow(recordings)
