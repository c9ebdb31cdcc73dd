"""`dora graph`: draw a dataflow, once or live."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dorad.cli.select import dataflow_option, load_running
from dorad.commandline.complete import dataflow_names
from dorad.commandline.files import DataflowFile, load_dataflow, write_text

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from dorad.dataflow.model import Dataflow

EPILOG = """\b
Examples:
  dora graph dataflow.yml --open       draw it and open it in the browser
  dora graph dataflow.yml -o flow.html
  dora graph dataflow.yml --mermaid    text for a README
  dora graph -d demo --open            a running dataflow, with its changes since the start
  dora graph --live                    the running dataflow: rates, drops, latencies, states
  dora graph --live demo --open        one of several, by its name or its file

\b
The live graph is a page for this machine alone. For a browser on another one, forward the port:
`ssh -t -L 8766:127.0.0.1:8766 robot dora graph --live`, and open the printed address there.
"""


def _complete(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    files = DataflowFile().shell_complete(context, parameter, incomplete)
    names = dataflow_names(context, parameter, incomplete) if context.params.get("live") else []
    return [*names, *files]


@click.command(epilog=EPILOG)
@click.argument("path", required=False, shell_complete=_complete)
@dataflow_option
@click.option("--live", is_flag=True, help="Serve a page with the figures of a running dataflow.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="With --live: port on loopback; default: 8766, or a free one.",
)
@click.option("--mermaid", is_flag=True, help="Print a Mermaid flowchart instead.")
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write  [default: <name>-graph.html here].",
)
def graph(
    path: str | None,
    *,
    dataflow: str | None,
    live: bool,
    port: int | None,
    mermaid: bool,
    show: bool,
    output: Path | None,
) -> None:
    """Draw the dataflow PATH, or a running one: its nodes, timers and edges.

    The result is an HTML file that needs no network, or a Mermaid flowchart on standard output.
    With --live, PATH may also be the name of a running dataflow; the page follows it, also when it
    is started again.
    """
    if mermaid and show:
        raise click.UsageError("--open needs the HTML page; leave out --mermaid")
    if live:
        if mermaid or output:
            raise click.UsageError("--live serves a page; leave out --mermaid and --output")
        if path and dataflow:
            raise click.UsageError("give either PATH or --dataflow")
        from dorad.cli.graph_live import serve

        serve(path or dataflow, port, _open if show else lambda _: None)
        return
    if port is not None:
        raise click.UsageError("--port goes with --live")
    name, drawn = _read(path, dataflow)
    if mermaid:
        from dorad.dataflow.draw import mermaid as flowchart

        text = flowchart(drawn)
        if output:
            write_text(output, text)
        else:
            click.echo(text, nl=False)
        return
    from dorad.dataflow.html import page

    # A dataflow of one robot of a fleet is called `arm1/pick`.
    target = output or Path(f"{name.replace('/', '-')}-graph.html")
    write_text(target, page(drawn))
    click.echo(f"wrote {target}")
    if show:
        _open(target.resolve().as_uri())


def _open(address: str) -> None:
    import webbrowser

    if not webbrowser.open(address):
        raise click.ClickException(f"cannot start a browser; open {address} yourself")


def _read(path: str | None, running: str | None) -> tuple[str, "Dataflow"]:
    """Return the dataflow to draw, and a name for the file of its picture."""
    if (path is None) is (running is None):
        raise click.UsageError("give either PATH or --dataflow")
    if path is not None:
        file = DataflowFile().convert(path, None, None)
        return file.stem, load_dataflow(file)
    return running or "", load_running(running)
