"""`dora graph`: draw a dataflow."""

from pathlib import Path

import click

from dorad.cli.files import dataflow_argument, load_dataflow, write_text

EPILOG = """\b
Examples:
  dora graph dataflow.yml --open       draw it and open it in the browser
  dora graph dataflow.yml -o flow.html
  dora graph dataflow.yml --mermaid    text for a README
"""


@click.command(epilog=EPILOG)
@dataflow_argument()
@click.option("--mermaid", is_flag=True, help="Print a Mermaid flowchart instead.")
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write  [default: <name>-graph.html here].",
)
def graph(path: Path, *, mermaid: bool, show: bool, output: Path | None) -> None:
    """Draw the dataflow PATH: its nodes, timers and edges.

    The result is an HTML file that needs no network, or a Mermaid flowchart on standard output.
    """
    if mermaid and show:
        raise click.UsageError("--open needs the HTML page; leave out --mermaid")
    dataflow = load_dataflow(path)
    if mermaid:
        from dorad.dataflow.draw import mermaid as flowchart

        text = flowchart(dataflow)
        if output:
            write_text(output, text)
        else:
            click.echo(text, nl=False)
        return
    from dorad.dataflow.html import page

    target = output or Path(f"{path.stem}-graph.html")
    write_text(target, page(dataflow))
    click.echo(f"wrote {target}")
    if show:
        import webbrowser

        if not webbrowser.open(target.resolve().as_uri()):
            raise click.ClickException(f"cannot start a browser; open {target} yourself")
