"""Output of several threads is written in whole lines."""

import io
import threading

from dorad.node.runtime.main import WholeLines


def test_lines_of_two_threads_do_not_mix() -> None:
    out = io.StringIO()
    stream = WholeLines(out)
    stream.write("from ")
    other = threading.Thread(target=print, args=("the", "other"), kwargs={"file": stream})
    other.start()
    other.join()
    stream.write("here\nand")
    assert out.getvalue() == "the other\nfrom here\n"
    stream.flush()
    assert out.getvalue().endswith("\nand")


def test_an_unfinished_line_is_written_at_the_end() -> None:
    out = io.StringIO()
    stream = WholeLines(out)
    thread = threading.Thread(target=stream.write, args=("begun",))
    thread.start()
    thread.join()
    assert out.getvalue() == ""
    stream.flush_all()
    assert out.getvalue() == "begun"


def test_other_methods_are_those_of_the_wrapped_stream() -> None:
    out = io.StringIO()
    assert WholeLines(out).isatty() is False
