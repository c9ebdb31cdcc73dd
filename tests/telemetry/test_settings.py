"""What variables and `[telemetry]` ask for."""

from pathlib import Path

import pytest

from dorad.daemon.config import ConfigError, parse
from dorad.telemetry.settings import (
    Endpoint,
    Listening,
    Section,
    TelemetryError,
    load_section,
    settings_of,
)

BASE = "OTEL_EXPORTER_OTLP_ENDPOINT"


def urls(environ, section=None):
    return {name: each.url for name, each in settings_of(environ, section).endpoints.items()}


def test_without_an_endpoint_nothing_is_sent():
    assert settings_of({BASE: " ", "OTEL_EXPORTER_OTLP_PROFILES_ENDPOINT": "http://x:4318"}).idle


@pytest.mark.parametrize("name", [BASE, "DORA_OTLP_ENDPOINT", "DORA_JAEGER_TRACING"])
def test_an_endpoint_is_for_all_signals_and_gets_their_paths(name):
    assert urls({name: "https://c/otlp/"}) == {
        "metrics": "https://c/otlp/v1/metrics",
        "logs": "https://c/otlp/v1/logs",
        "traces": "https://c/otlp/v1/traces",
    }


def test_the_endpoint_of_a_signal_is_used_as_it_is():
    environ = {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://logs:1/push", BASE: "http://all:2"}
    assert urls(environ) == {
        "metrics": "http://all:2/v1/metrics",
        "logs": "http://logs:1/push",
        "traces": "http://all:2/v1/traces",
    }


@pytest.mark.parametrize(
    ("environ", "protocol"),
    [
        ({BASE: "http://c:4317"}, "grpc"),
        ({BASE: "c:4317"}, "grpc"),
        ({BASE: "http://c:4318"}, "http/protobuf"),
        ({BASE: "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "http/protobuf"),
        (
            {
                BASE: "http://c",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc",
            },
            "grpc",
        ),
    ],
)
def test_port_4317_and_a_variable_choose_grpc(environ, protocol):
    endpoint = settings_of(environ).endpoints["metrics"]
    assert endpoint.protocol == protocol
    assert endpoint.url.endswith("/v1/metrics") is (protocol != "grpc")


def test_signals_can_be_left_out():
    assert urls({BASE: "http://c", "OTEL_LOGS_EXPORTER": "none"}).keys() == {"metrics", "traces"}
    assert settings_of({BASE: "http://c", "OTEL_SDK_DISABLED": "true"}).idle
    assert urls({}, Section("http://c", signals=("logs",))).keys() == {"logs"}


@pytest.mark.parametrize(
    "environ",
    [
        {BASE: "ftp://c"},
        {BASE: "http://"},
        {BASE: "http://c:99999"},
        {BASE: "http://c:0"},
        {BASE: "http://c/\x1b[2J"},
        {BASE: "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
        {BASE: "http://c", "OTEL_METRICS_EXPORTER": "prometheus"},
        {BASE: "http://c", "OTEL_METRIC_EXPORT_INTERVAL": "10"},
        {BASE: "http://c", "OTEL_METRIC_EXPORT_INTERVAL": "often"},
    ],
)
def test_what_cannot_be_used_is_refused_with_the_name_of_its_variable(environ):
    with pytest.raises(TelemetryError) as caught:
        settings_of(environ)
    assert any(name in str(caught.value) for name in environ)
    assert str(caught.value).isprintable()


def test_variables_go_before_the_file():
    section = Section("http://file", "grpc", 30.0)
    found = settings_of({BASE: "http://variable", "OTEL_METRIC_EXPORT_INTERVAL": "5000"}, section)
    assert found.endpoints["metrics"] == Endpoint("http://variable", "grpc")
    assert found.interval == 5.0
    assert settings_of({}, section).interval == 30.0


def test_a_url_is_shown_without_its_secrets():
    shown = Endpoint("https://user:word@c:4318/v1/logs?key=secret", "grpc").shown
    assert shown == "https://c:4318/v1/logs"


FILE = """
[telemetry]
endpoint = "http://collector:4317"
interval = 30
logs = false
scrape = "127.0.0.1:9464"
scrape_token = "/etc/dorad/scrape.token"
"""


def test_the_daemon_and_the_exporter_read_one_section(tmp_path):
    path = tmp_path / "dorad.toml"
    path.write_text(FILE)
    section = load_section(path)
    assert section == parse(FILE, "dorad.toml").telemetry
    assert section == Section(
        "http://collector:4317",
        interval=30.0,
        signals=("metrics", "traces"),
        scrape=Listening("127.0.0.1", 9464),
        scrape_token=Path("/etc/dorad/scrape.token"),
    )
    assert load_section(tmp_path / "none.toml") == Section()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('endpoint = "nonsense://x"', "is not a URL"),
        ('protocol = "http/json"', "must be one of grpc, http/protobuf"),
        ("interval = 0", "from 1 to 3600"),
        ('scrape = "0.0.0.0:9464"', "of this machine only"),
        ('scrape = "127.0.0.1:9464"', "needs `scrape_token`"),
        ('scrape = "unix:metrics.sock"', "is not an absolute path"),
        ("metrics = 1", "metrics"),
        ('endpont = "http://c"', "endpont"),
    ],
)
def test_mistakes_in_the_section_are_found_by_both(tmp_path, line, problem):
    path = tmp_path / "dorad.toml"
    path.write_text(f"[telemetry]\n{line}\n")
    with pytest.raises(TelemetryError, match=problem):
        load_section(path)
    with pytest.raises(ConfigError, match=problem):
        parse(path.read_text(), "dorad.toml")
