"""Telemetry of `dora run`: starts the exporter, and feeds it measurements, log lines and traces."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from dorad.commandline.reports import print_warning
from dorad.control import messages as m
from dorad.daemon.measuring.runmeter import RunMeter
from dorad.telemetry.feed import Fed, Report, frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from dorad.daemon.run import DataflowRun, Ended
    from dorad.logrecord import LogRecord
    from dorad.telemetry.settings import TelemetrySettings
    from dorad.trace.sampling import TraceQueue

MAX_WAITING = 16 << 20
"""Bytes that wait for the exporter at most."""
END_S = 1.0
"""Seconds that the exporter may outlive the dataflow."""

ITEMS = {"metrics": "data points", "logs": "log lines", "traces": "traces"}

_log = logging.getLogger(__name__)


class RunTelemetry:
    """Feeds an exporter of its own. It may end, hang or never start: the dataflow runs on."""

    def __init__(self, settings: TelemetrySettings, dataflow_id: str, name: str) -> None:
        """`name` is what the dataflow is called in telemetry."""
        self.ended: Ended | None = None
        """The end of the run, for the last measurement."""
        self._settings = settings
        self._dataflow_id = dataflow_id
        self._name = name
        self._exporter: asyncio.subprocess.Process | None = None
        self._lost = 0
        """Log lines that were not fed and that the exporter does not know of."""
        self._lost_traces = 0
        """As many traces."""
        self._reports: dict[str, Report] = {}
        self._meter = RunMeter(name)

    def take(self, records: Sequence[LogRecord]) -> None:
        """Feed log lines; drop and count them if the exporter does not read."""
        if "logs" in self._settings.endpoints:
            lines = m.LogLines(dataflow=self._dataflow_id, lines=list(records), left_out=self._lost)
            if self._feed(Fed(lines=lines, name=self._name)):
                self._lost = 0
            else:
                self._lost += len(records)

    @asynccontextmanager
    async def of(self, run: DataflowRun) -> AsyncIterator[None]:
        """Have an exporter as long as a dataflow runs, and at most a second longer."""
        command = (sys.executable, "-P", "-m", "dorad.telemetry.main", "--fed")
        pipe = asyncio.subprocess.PIPE
        # In a session of its own: Ctrl-C is for the dataflow, whose end ends the exporter.
        exporter = self._exporter = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, start_new_session=True
        )
        _log.debug("exporter of telemetry: process %d", exporter.pid)
        reading = asyncio.create_task(self._read_reports(exporter, run))
        with run.traces.export.follow() as traces:
            tasks = {
                asyncio.create_task(self._measure(run)),
                asyncio.create_task(self._follow_traces(traces)),
            }
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                await self._end(exporter, reading, run, traces)

    async def _end(
        self,
        exporter: asyncio.subprocess.Process,
        reading: asyncio.Task[None],
        run: DataflowRun,
        traces: TraceQueue,
    ) -> None:
        self._feed_top(run)
        while (batch := traces.take()) is not None:
            self._feed_traces(batch)
        assert exporter.stdin is not None
        exporter.stdin.close()
        try:
            async with asyncio.timeout(END_S):
                await exporter.wait()
                await reading
        except TimeoutError:
            with suppress(ProcessLookupError):
                exporter.kill()
            await exporter.wait()
            reading.cancel()
        for text in self._losses(exporter.returncode):
            print_warning(text)

    def _losses(self, code: int | None) -> list[str]:
        texts = []
        for signal, endpoint in self._settings.endpoints.items():
            report = self._reports.get(signal)
            if report is None or not report.last:
                why = "was killed: it did not end in time" if code == -9 else f"ended with {code}"
                texts.append(f"{signal} may be missing at {endpoint.shown}: the exporter {why}")
            elif report.dropped:
                why = f": {report.error}" if report.error else ""
                texts.append(f"{report.dropped} {ITEMS[signal]} did not reach {report.url}{why}")
        for lost, items in ((self._lost, "log lines"), (self._lost_traces, "traces")):
            if lost:
                texts.append(f"{lost} {items} were not taken by the exporter of telemetry")
        return texts

    async def _read_reports(self, exporter: asyncio.subprocess.Process, run: DataflowRun) -> None:
        assert exporter.stdout is not None
        async for line in exporter.stdout:
            with contextlib.suppress(msgspec.DecodeError):
                report = msgspec.json.decode(line, type=Report)
                self._reports[report.signal] = report
                if report.last:
                    continue
                if report.error:
                    text = f"{report.signal} do not reach {report.url}: {report.error}"
                    run.report("warn", None, text)
                else:
                    text = f"{report.signal} reach {report.url} again, {report.dropped} were lost"
                    run.report("info", None, text)

    async def _follow_traces(self, traces: TraceQueue) -> None:
        while True:
            self._feed_traces(await traces.wait())

    def _feed_traces(self, batch: m.TraceBatch) -> None:
        batch.left_out += self._lost_traces
        fed = self._feed(Fed(traces=batch, name=self._name))
        self._lost_traces = 0 if fed else batch.left_out + len(batch.traces)

    async def _measure(self, run: DataflowRun) -> None:
        while True:
            self._feed_top(run)
            await asyncio.sleep(self._settings.interval)

    def _feed_top(self, run: DataflowRun) -> None:
        if not run.opened and self.ended is None:
            return  # nothing has been sent yet
        self._feed(Fed(top=self._meter.top(run, self.ended)))

    def _feed(self, fed: Fed) -> bool:
        """Write a frame; return False if the exporter is not there or does not read."""
        stream = None if self._exporter is None else self._exporter.stdin
        if stream is None or stream.is_closing():
            return False
        if stream.transport.get_write_buffer_size() > MAX_WAITING:
            return False
        stream.write(frame(fed))
        return True
