"""Runs the `dora` command as `python -m dorad.cli`, where its script is not on PATH."""

from dorad.cli.main import main

main()
