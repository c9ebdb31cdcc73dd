"""Run the `dorafleet` command as `python -m dorafleet.cli`, if its script is not on PATH."""

from dorafleet.cli.main import main

main()
