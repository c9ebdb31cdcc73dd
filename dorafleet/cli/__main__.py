"""Runs the `dorafleet` command as `python -m dorafleet.cli`, where its script is not on PATH."""

from dorafleet.cli.main import main

main()
