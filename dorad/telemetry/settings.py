"""What the exporter sends, and where: from environment variables and `[telemetry]` in dorad.toml.

The exporters of OpenTelemetry read the standard variables for headers, TLS, compression and
timeouts themselves. A variable goes before a key of the file; an empty one counts as unset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from dorad.dataflow import toml
from dorad.dataflow.errors import TextError
from dorad.dataflow.fields import Fields, one_of
from dorad.dataflow.problems import Problems, in_order
from dorad.problems import ProblemError
from dorad.terminal import visible

Protocol = Literal["grpc", "http/protobuf"]
Signal = Literal["metrics", "logs", "traces"]

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
SIGNALS: tuple[Signal, ...] = get_args(Signal)
SECTION = "telemetry"
INTERVAL_S = 10.0
"""Time between two measurements that are sent."""
MAX_INTERVAL_S = 3600.0

_GRPC_PORT = 4317
_SHARED = ("OTEL_EXPORTER_OTLP_ENDPOINT", "DORA_OTLP_ENDPOINT", "DORA_JAEGER_TRACING")
"""Variables with the endpoint of all signals, the first that is set counts."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_UNIX = "unix:"


class TelemetryError(ProblemError):
    """A setting that cannot be used; the message names it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__("refused", message, hint)


class Endpoint(NamedTuple):
    """Where one signal is sent."""

    url: str
    """Of the signal itself over HTTP, of the server over gRPC."""
    protocol: Protocol

    @property
    def shown(self) -> str:
        """The URL without what may be secret in it."""
        parts = urlsplit(self.url)
        return visible(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")


class Listening(NamedTuple):
    """Where the scrape endpoint listens: on a port of the loopback interface, or at a socket."""

    host: str = ""
    port: int = 0
    path: Path | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.path is None else f"{_UNIX}{self.path}"


@dataclass(frozen=True, slots=True)
class Section:
    """The keys of `[telemetry]`, checked one by one."""

    endpoint: str = ""
    protocol: Protocol | None = None
    interval: float | None = None
    signals: tuple[Signal, ...] = SIGNALS
    """Those that are not switched off."""
    scrape: Listening | None = None
    scrape_token: Path | None = None
    """File with the token that a client of a port must send."""


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """What is sent where. Without any endpoint there is nothing to do."""

    endpoints: dict[Signal, Endpoint]
    interval: float = INTERVAL_S
    """Seconds."""
    scrape: Listening | None = None
    token: Path | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is sent and nobody may ask."""
        return not self.endpoints and self.scrape is None


def settings_of(environ: Mapping[str, str], section: Section | None = None) -> TelemetrySettings:
    """Return what these variables and this section ask for.

    Raises:
        TelemetryError: a value cannot be used.
    """
    section = Section() if section is None else section
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return TelemetrySettings({})
    endpoints: dict[Signal, Endpoint] = {}
    for signal in SIGNALS:
        if signal in section.signals and _exports(environ, signal):
            endpoint = _endpoint(environ, signal, section)
            if endpoint is not None:
                endpoints[signal] = endpoint
    return TelemetrySettings(
        endpoints, _interval(environ, section), section.scrape, section.scrape_token
    )


def _exports(environ: Mapping[str, str], signal: Signal) -> bool:
    name = f"OTEL_{signal.upper()}_EXPORTER"
    value = environ.get(name, "").strip() or "otlp"
    if value not in ("otlp", "none"):
        raise TelemetryError(
            f"{name}: `{visible(value)}` is not supported, only `otlp` and `none`",
            "for Prometheus set `scrape` in `[telemetry]` of dorad.toml",
        )
    return value == "otlp"


def _endpoint(environ: Mapping[str, str], signal: Signal, section: Section) -> Endpoint | None:
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
    for name in (own, *_SHARED):
        if value := environ.get(name, "").strip():
            try:
                url = checked_url(value)
            except TextError as error:
                raise TelemetryError(f"{name}: {error}") from error
            protocol = _protocol(environ, signal, url, section)
            return Endpoint(url if name == own else _full(url, signal, protocol), protocol)
    if not section.endpoint:
        return None
    protocol = _protocol(environ, signal, section.endpoint, section)
    return Endpoint(_full(section.endpoint, signal, protocol), protocol)


def checked_url(text: str) -> str:
    """Return the URL of a collector; `host:port` means `http://host:port`.

    Raises:
        TextError: it is not one.
    """
    url = text if "://" in text else f"http://{text}"
    wrong = TextError(f"`{visible(text)}` is not a URL such as http://localhost:4318")
    if not url.isprintable() or " " in url:
        raise wrong
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise wrong
    return url


def _full(url: str, signal: Signal, protocol: Protocol) -> str:
    return url if protocol == "grpc" else f"{url.rstrip('/')}/v1/{signal}"


def _protocol(environ: Mapping[str, str], signal: Signal, url: str, section: Section) -> Protocol:
    for name in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        value = environ.get(name, "").strip()
        if value in PROTOCOLS:
            return value
        if value:
            known = " and ".join(f"`{each}`" for each in PROTOCOLS)
            raise TelemetryError(f"{name}: `{visible(value)}` is not supported, only {known}")
    if section.protocol is not None:
        return section.protocol
    return "grpc" if urlsplit(url).port == _GRPC_PORT else "http/protobuf"


def _interval(environ: Mapping[str, str], section: Section) -> float:
    name = "OTEL_METRIC_EXPORT_INTERVAL"
    if value := environ.get(name, "").strip():
        seconds = int(value) / 1000 if value.isascii() and value.isdecimal() else 0
        if not 1 <= seconds <= MAX_INTERVAL_S:
            raise TelemetryError(
                f"{name}: `{visible(value)}` is not a number of milliseconds from 1000 to 3600000"
            )
        return seconds
    return INTERVAL_S if section.interval is None else section.interval


def read_section(block: Fields) -> Section:
    """Return the settings of the section; its problems go to those of `block`."""
    signals = tuple(signal for signal in SIGNALS if block.flag(signal) is not False)
    interval = block.integer("interval", minimum=1, maximum=int(MAX_INTERVAL_S))
    scrape = block.checked("scrape", _listening, None)
    token = block.checked("scrape_token", _absolute, None)
    if scrape is not None and scrape.path is None and token is None:
        block.problems.error(
            block.name_of("scrape"),
            "needs `scrape_token`, a file with the token that clients send",
            "every user of this machine can connect to a port",
        )
    return Section(
        endpoint=block.checked("endpoint", checked_url, ""),
        protocol=block.checked("protocol", _known_protocol, None),
        interval=None if interval is None else float(interval),
        signals=signals,
        scrape=scrape,
        scrape_token=token,
    )


def load_section(path: Path) -> Section:
    """Return the section of the file at `path`; the defaults if there is no file.

    Raises:
        TelemetryError: the file cannot be read, or the section has mistakes.
    """
    problems = Problems(str(path))
    if not path.exists():
        return Section()
    section = Section()
    if (block := toml.read_section(path, SECTION, problems)) is not None:
        section = read_section(block)
        block.finish()
    if problems.errors:
        raise TelemetryError("; ".join(map(str, in_order(problems.errors))))
    return section


def _known_protocol(text: str) -> Protocol:
    return "grpc" if one_of(PROTOCOLS)(text) == "grpc" else "http/protobuf"


def _listening(text: str) -> Listening:
    if text.startswith(_UNIX):
        return Listening(path=_absolute(text.removeprefix(_UNIX)))
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    if host not in _LOOPBACK or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise TextError(
            f"`{visible(text)}` is neither a port such as 127.0.0.1:9464, of this machine only, "
            "nor a socket such as unix:/run/dorad-telemetry/metrics.sock"
        )
    return Listening(host, int(port))


def _absolute(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute():
        raise TextError(f"`{visible(text)}` is not an absolute path")
    return path
