"""Run the `dora` command as `python -m dorad.cli`, for when its script is not on PATH."""

from dorad.cli.main import main

main()
