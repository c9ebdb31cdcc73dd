"""How the services end."""

import subprocess
import sys

PROGRAM = """
import atexit, sys, click
from dorad.program import run_program

@click.command()
@click.option("--code", type=int)
def command(code):
    print("done")
    return code

atexit.register(print, "shut down")
run_program(command, "program")
"""


def ended(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


def test_a_service_ends_with_its_code_and_output_without_shutting_down_the_interpreter() -> None:
    assert ended("--code", "3") == (3, "done\n")
    assert ended() == (0, "done\n")


def test_a_usage_error_has_its_own_code() -> None:
    assert ended("--code", "x")[0] == 2
