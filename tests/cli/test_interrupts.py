"""Ctrl-C and SIGTERM during a run: stop, kill, exit."""

from dorad.cli.interrupts import Interrupts


class Run:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def stop(self) -> None:
        self.calls.append("stop")

    def kill(self, why: str) -> None:
        self.calls.append("kill")

    def abandon(self) -> None:
        self.calls.append("abandon")


def test_the_first_signal_stops_the_second_kills_the_third_exits() -> None:
    run, reported, codes = Run(), list[str](), list[int]()
    interrupts = Interrupts(run, reported.append, codes.append)
    for _ in range(3):
        interrupts.interrupt()
    assert run.calls == ["stop", "kill", "abandon"]
    assert codes == [1]
    assert [text.partition(";")[0] for text in reported] == ["stopping", "killing the nodes"]
