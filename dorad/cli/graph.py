"""`dora graph`: draw a dataflow."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dorad.cli.files import dataflow_argument, load_dataflow, write_text
from dorad.cli.select import dataflow_option, load_running

if TYPE_CHECKING:
    from dorad.dataflow.model import Dataflow

EPILOG = """\b
Examples:
  dora graph dataflow.yml --open       draw it and open it in the browser
  dora graph dataflow.yml -o flow.html
  dora graph dataflow.yml --mermaid    text for a README
  dora graph -d demo --open            a running dataflow, with its changes since the start
"""


@click.command(epilog=EPILOG)
@dataflow_argument(required=False)
@dataflow_option
@click.option("--mermaid", is_flag=True, help="Print a Mermaid flowchart instead.")
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write  [default: <name>-graph.html here].",
)
def graph(
    path: Path | None, *, dataflow: str | None, mermaid: bool, show: bool, output: Path | None
) -> None:
    """Draw the dataflow PATH, or a running one: its nodes, timers and edges.

    The result is an HTML file that needs no network, or a Mermaid flowchart on standard output.
    """
    if mermaid and show:
        raise click.UsageError("--open needs the HTML page; leave out --mermaid")
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
        import webbrowser

        if not webbrowser.open(target.resolve().as_uri()):
            raise click.ClickException(f"cannot start a browser; open {target} yourself")


def _read(path: Path | None, running: str | None) -> tuple[str, "Dataflow"]:
    """Return the dataflow to draw, and a name for the file of its picture."""
    if (path is None) is (running is None):
        raise click.UsageError("give either PATH or --dataflow")
    if path is not None:
        return path.stem, load_dataflow(path)
    return running or "", load_running(running)
