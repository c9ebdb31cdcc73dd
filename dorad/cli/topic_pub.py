"""`dora topic pub`: send a message on an output as if its node did."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dorad.cli.param import parse_json
from dorad.cli.select import connect, dataflow_option, select
from dorad.commandline.complete import topic_names

EPILOG = """\b
Examples:
  dora topic pub arm/target '[0.5, 1.2]'
  dora topic pub arm/target --file target.json --count 10
  dora topic pub light/switch true --metadata '{"request_id": "7"}'

\b
A list becomes an Arrow array of its elements, any other value an array of one element. All
subscribers of the output get the message; its node does not.
"""

MAX_PER_REQUEST = 256
"""Maximum number of messages in one request."""


@click.command(epilog=EPILOG, context_settings={"ignore_unknown_options": True})
@click.argument("topic", shell_complete=topic_names)
@click.argument("data", metavar="[JSON]", required=False)
@dataflow_option
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    help="Read the JSON from this file; `-` is standard input.",
)
@click.option(
    "--count", type=click.IntRange(min=1), default=1, metavar="N", help="Send it N times."
)
@click.option("--metadata", metavar="JSON", help="Metadata of the message, a JSON object.")
def pub(
    topic: str,
    data: str | None,
    *,
    dataflow: str | None,
    file: Path | None,
    count: int,
    metadata: str | None,
) -> None:
    """Send JSON on TOPIC (`node/output`) as if its node did."""
    if (data is None) == (file is None):
        raise click.UsageError("give the message as JSON, or in a file with --file")
    value = (
        parse_json(data, "the message") if data is not None else parse_json(_read(file), str(file))
    )
    extra = {} if metadata is None else parse_json(metadata, "--metadata")
    if not isinstance(extra, dict):
        raise click.UsageError("--metadata must be an object, such as '{\"key\": 1}'")
    with connect() as client:
        uuid = select(client, dataflow)
        subscribers = 0
        for sent in range(0, count, MAX_PER_REQUEST):
            part = [value] * min(MAX_PER_REQUEST, count - sent)
            subscribers = client.publish(topic, part, dataflow=uuid, metadata=extra).subscribers
    times = f" {count} times" if count > 1 else ""
    to = "1 subscriber" if subscribers == 1 else f"{subscribers} subscribers"
    click.echo(f"published to {topic}{times}, {to}", err=True)


def _read(file: Path | None) -> str:
    from dorad.boundedfile import read_bounded
    from dorad.control.limits import MAX_REQUEST

    assert file is not None
    # Read no more than a request may have: a device, or a pipe, may never end.
    try:
        if str(file) != "-":
            return read_bounded(file, MAX_REQUEST, pipes=True).decode()
        data = sys.stdin.buffer.read(MAX_REQUEST + 1)
        if len(data) > MAX_REQUEST:
            raise click.ClickException(f"{file} is larger than {MAX_REQUEST >> 20} MB")
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise click.ClickException(f"cannot read {file}: {reason}") from error
