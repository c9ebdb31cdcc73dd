"""The keys of a node and what they become in the model."""

import pytest

from dorad.dataflow.model import NodeKind
from dorad.dataflow.settings import (
    Amounts,
    Avoid,
    Deploy,
    Distribute,
    Git,
    Logging,
    LogLevel,
    OutputFraming,
    Restart,
    RestartPolicy,
    Types,
)
from tests.dataflow.reading import (
    error,
    node,
    node_text,
    path_node,
    path_node_text,
    problem,
    read,
)

_SHA = "ab" * 32


def test_the_defaults_of_a_node() -> None:
    found = path_node("")
    assert (found.id, found.kind, found.path, found.key) == ("a", NodeKind.PATH, "a.py", "nodes[0]")
    assert (found.args, found.env, found.build, found.git) == (None, {}, (), None)
    assert (found.inputs, found.outputs, found.cpu_affinity) == ((), (), ())
    assert (found.spin_us, found.shared_memory_pool_size) == (None, None)
    assert found.restart == Restart(RestartPolicy.NEVER, 0, None, None, None)
    assert found.logging == Logging(max_rotated_files=5)
    assert found.types == Types()
    assert found.deploy is None


def test_every_key_of_a_path_node() -> None:
    found = path_node(
        """
        name: A node
        description: does things
        args: --x 'a b'
        env: {A: 1}
        build: |
          pip install x
          make
        git: https://example.org/x.git
        tag: v1
        inputs: {t: dora/timer/secs/1}
        outputs: [o, p]
        output_types: {o: std/core/v1/Float32}
        input_types: {t: std/core/v1/UInt64}
        output_framing: {o: raw}
        output_metadata: {o: [width, height]}
        pattern: service-server
        cpu_affinity: [0, 3]
        spin_us: 0
        shared_memory_pool_size: 64MB
        restart_policy: on-failure
        max_restarts: 3
        restart_delay: 0.5
        max_restart_delay: 10
        restart_window: 60
        health_check_timeout: 2
        startup_timeout: 30
        finish_grace_secs: 0
        send_stdout_as: o
        send_logs_as: p
        min_log_level: INFO
        max_log_size: 5MB
        max_rotated_files: 7
        deploy:
          machine: m
          labels: {gpu: 1}
          working_dir: /w
          distribute: scp
          needs: {cpu: 1.5, memory: 2GB, gpu: 1, devices: [/dev/video0]}
          avoid: {machines: [old], nodes: [other]}
        """
    )
    assert (found.name, found.description) == ("A node", "does things")
    assert (found.args, found.env) == ("--x 'a b'", {"A": "1"})
    assert found.build == ("pip install x", "make")
    assert found.git == Git("https://example.org/x.git", tag="v1")
    assert found.outputs == ("o", "p")
    assert found.types == Types(
        {"t": "std/core/v1/UInt64"},
        {"o": "std/core/v1/Float32"},
        {"o": OutputFraming.RAW},
        {"o": ("width", "height")},
        "service-server",
    )
    assert (found.cpu_affinity, found.spin_us) == ((0, 3), 0)
    assert found.shared_memory_pool_size == 64 << 20
    assert found.restart == Restart(RestartPolicy.ON_FAILURE, 3, 0.5, 10.0, 60.0)
    assert (found.health_check_timeout, found.startup_timeout) == (2.0, 30.0)
    assert found.finish_grace_secs == 0.0
    assert found.logging == Logging("o", "p", LogLevel.INFO, 5 << 20, 7)
    assert found.deploy == Deploy(
        "m",
        {"gpu": "1"},
        "/w",
        Distribute.SCP,
        Amounts(1.5, 2 << 30, 1, ("/dev/video0",)),
        Avoid(("old",), ("other",)),
    )


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ("path: x.py", NodeKind.PATH),
        ("path: dynamic", NodeKind.DYNAMIC),
        ("path: ./dynamic", NodeKind.PATH),
        ("path: shell\nargs: echo it's", NodeKind.SHELL),
        ("path: https://example.org/x", NodeKind.URL),
        ("path: http://example.org/x", NodeKind.URL),
        ("path: HTTP://example.org/x", NodeKind.PATH),
        ("operator: {python: x.py}", NodeKind.OPERATORS),
        ("operators: []", NodeKind.OPERATORS),
        ("hub: ns/x@^1.2", NodeKind.HUB),
        ("ros2: {topic: /x, message_type: a/B}\noutputs: [o]", NodeKind.ROS2),
    ],
)
def test_kinds(keys: str, kind: NodeKind) -> None:
    found = node(keys)
    assert found.kind is kind
    assert found.is_dynamic == (kind is NodeKind.DYNAMIC)


def test_the_command_of_a_shell_node_may_have_any_quotes() -> None:
    assert node("path: shell\nargs: echo it's").args == "echo it's"


def test_a_url_may_have_a_checksum() -> None:
    found = node(f"path: https://example.org/x\npath_sha256: {_SHA.upper()}")
    assert found.path_sha256 == _SHA


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("argz: x", "argz: unknown key `argz` (did you mean `args`?)"),
        ("args: [a, b]", "args: must be text, not a list"),
        ("args: 'a \"b'", 'args: a quote " is never closed (write `\\"` for the character itself)'),
        ("build: [a]", "build: must be text, not a list"),
        ("build: make 'x", "build: a quote ' is never closed (write `\\'` for the"),
        ("outputs: a", "outputs: must be a list, not `a`"),
        ("outputs: {a: b}", "outputs: must be a list, not a mapping"),
        ("outputs: [a, ~]", "outputs[1]: must be text, not nothing"),
        ("inputs: [a/b]", "inputs: must be a mapping, not a list"),
        ("cpu_affinity: 1", "cpu_affinity: must be a list, not 1"),
        ("cpu_affinity: [-1]", "cpu_affinity[0]: must be a whole number from 0 to 65536, not -1"),
        ("spin_us: -1", "spin_us: must be a whole number from 0 to 1000, not -1"),
        ("spin_us: 1001", "spin_us: must be a whole number from 0 to 1000, not 1001"),
        ("spin_us: 0.5", "spin_us: must be a whole number from 0 to 1000, not 0.5"),
        ("spin_us: true", "spin_us: must be a whole number from 0 to 1000, not true"),
        ("shared_memory_pool_size: 64TB", "shared_memory_pool_size: `64TB` has an unknown unit"),
        ("shared_memory_pool_size: -1", "shared_memory_pool_size: must be a whole number, 0 or"),
        ("shared_memory_pool_size: 1.5", "shared_memory_pool_size: must be a whole number, 0 or"),
        ("restart_policy: on_failure", "restart_policy: must be one of never, on-failure, always,"),
        ("max_restarts: '3'", "max_restarts: must be a whole number from 0 to 4294967295, not `3`"),
        ("max_restarts: 4294967296", "max_restarts: must be a whole number from 0 to 4294967295"),
        ("restart_delay: '3'", "restart_delay: must be a number of seconds, not `3` (without quo"),
        ("restart_delay: 1s", "restart_delay: must be a number of seconds, not `1s`"),
        ("restart_delay: .nan", "restart_delay: must be a finite number of seconds, 0 or more,"),
        ("restart_delay: 2e19", "restart_delay: must be a finite number of seconds, 0 or more,"),
        ("max_restart_delay: .inf", "max_restart_delay: must be a finite number of seconds"),
        ("restart_window: -1", "restart_window: must be a finite number of seconds, 0 or more"),
        ("health_check_timeout: -0.1", "health_check_timeout: must be a finite number of seconds"),
        ("startup_timeout: []", "startup_timeout: must be a number of seconds, not a list"),
        ("finish_grace_secs: off", "finish_grace_secs: must be a number of seconds, not `off`"),
        ("send_stdout_as: o", "send_stdout_as: `o` is not among the outputs (add it: `outputs: [o"),
        ("send_logs_as: ot\noutputs: [out]", "send_logs_as: `ot` is not among the outputs (did"),
        ("min_log_level: warning", "min_log_level: must be one of error, warn, info, debug, trac"),
        ("max_log_size: 5XB", "max_log_size: `5XB` has an unknown unit (B, KB, MB or GB, of 1024"),
        ("max_rotated_files: 0", "max_rotated_files: must be a whole number from 1 to 100, not 0"),
        ("max_rotated_files: 101", "max_rotated_files: must be a whole number from 1 to 100, not"),
        ("output_framing: {o: x}\noutputs: [o]", "output_framing.o: must be one of raw, arrow-ipc"),
        ("output_framing: [o]", "output_framing: must be a mapping, not a list"),
        ("output_metadata: [o]", "output_metadata: must be a mapping, not a list"),
        ("output_rates: [o]", "output_rates: must be a mapping, not a list"),
        ("output_rates: {o: fast}", "output_rates.o: must be a number from 0 to"),
        ("output_rates: {o: -1}", "output_rates.o: must be a number from 0 to"),
        ("output_types: [a]", "output_types: must be a mapping, not a list"),
        ("git: git@x.org:a\nbranch: a\ntag: b", "tag: `branch` and `tag` exclude each other"),
        ("git: x", "git: `x` is not the URL of a repository (write `https://HOST/PATH`, `ssh"),
        ("git: --upload-pack=x", "git: `--upload-pack=x` is not the URL of a repository"),
        ("git: ext::sh -c true", "git: `ext::sh -c true` is not the URL of a repository"),
        ("git: ssh://-oProxyCommand=x/y", "git: `ssh://-oProxyCommand=x/y` is not the URL"),
        ("git: https://x.org/a\nrev: --all", "rev: `--all` is not the name of a branch, a tag or"),
        ("git: https://x.org/a\nbranch: a b", "branch: `a b` is not the name of a branch"),
        ("rev: a", "rev: needs `git`"),
        (f"path_sha256: {_SHA}", "path_sha256: only a `path` that is a URL can have a checksum"),
        ("path_sha256: abc", "path_sha256: must be 64 hexadecimal digits (the output of `sha256"),
        ("deploy: m", "deploy: must be a mapping, not `m`"),
        ("deploy: {needs: {cpu: -1}}", "deploy.needs.cpu: must be a number from 0 to 10000"),
        ("deploy: {needs: {memory: 1XB}}", "deploy.needs.memory: `1XB` has an unknown unit"),
        ("deploy: {needs: {gpu: 0.5}}", "deploy.needs.gpu: must be a whole number"),
        ("deploy: {needs: {devices: [a b]}}", "deploy.needs.devices[0]: a device is a path"),
        (
            "deploy: {needs: {gpus: 1}}",
            "deploy.needs.gpus: unknown key `gpus` (did you mean `gpu`",
        ),
        ("deploy: {needs: 2}", "deploy.needs: must be a mapping such as `{cpu: 2, memory: 1GB}`"),
        ("deploy: {avoid: [a]}", "deploy.avoid: must be a mapping with `machines`, `nodes` or"),
        ("deploy: {avoid: {node: [a]}}", "deploy.avoid.node: unknown key `node` (did you mean"),
        ("deploy: {resources: {}}", "deploy.resources: unknown key `resources` (write `needs`)"),
        ("deploy: {machin: m}", "deploy.machin: unknown key `machin` (did you mean `machine`?)"),
        ("queue_size: 1", "queue_size: unknown key `queue_size` (it is an option of an input"),
        ('args: "a\\0b"', "args: contains a NUL character"),
        ('build: "a \\"b\\0\\""', "build: contains a NUL character"),
        ("inputs: [x: a/b]", "inputs: must be a mapping, not a list (write the entries without"),
        ("inputs: [a/b]", "inputs: must be a mapping, not a list (give each entry a name"),
        ("outputs: [image: png]", "outputs[0]: must be text, not a mapping (write `- image`)"),
        ("inputs:\nx: a/b", "x: unknown key `x` (an input is indented below `inputs`)"),
        ("inputs: [{x: a/b, y: a/c}]", "inputs: must be a mapping, not a list (give each entry a"),
        ("_unstable_deploy: {}", "_unstable_deploy: unknown key `_unstable_deploy` (write `depl"),
    ],
)
def test_mistakes_in_a_path_node(keys: str, message: str) -> None:
    assert error(keys).startswith(message)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("path:", "nodes[0]: has no program: needs one of path, operators, operator, ros2"),
        ("path: ''", "nodes[0].path: cannot be empty"),
        ("path: [x]", "nodes[0].path: must be text, not a list"),
        ("pth: x", "nodes[0].pth: unknown key `pth` (did you mean `path`?)"),
        ("custom: {source: x}", "nodes[0].custom: unknown key `custom` (write its `source` as"),
        ("node: x", "nodes[0].node: unknown key `node` (name the program with `path`)"),
        ("script: x", "nodes[0].script: unknown key `script` (name the program with `path`)"),
        ("source: x", "nodes[0].source: unknown key `source` (name the program with `path`)"),
        ("cmd: x", "unknown key `cmd` (name the program with `path`, its arguments with `args`)"),
        ("path: shell", "nodes[0].path: a shell node needs its command (write it as `args`)"),
        ("path: dynamic\nstartup_timeout: 1", "nodes[0].startup_timeout: dorad does not start"),
        ("path: x\noperator: {python: y}", "nodes[0].operator: `path` and `operator` exclude each"),
        ("module: /x.yml", "nodes[0].module: `/x.yml` leaves the directory of the dataflow"),
        ("module: a/../../x.yml", "nodes[0].module: `a/../../x.yml` leaves the directory"),
        ("hub: x", "nodes[0].hub: `x` is not a package (write `name@1.2`"),
    ],
)
def test_mistakes_in_the_kind_of_a_node(keys: str, message: str) -> None:
    assert message in str(problem(node_text(keys)))


def test_a_key_beside_inputs_that_are_not_empty_is_no_input() -> None:
    assert error("inputs: {t: dora/timer/hz/1}\nx: a/b") == "x: unknown key `x`"


@pytest.mark.parametrize(
    ("keys", "key", "hint"),
    [
        ("hub: x@1\nbuild: make", "build", None),
        ("operator: {python: x}\nargs: a", "args", None),
        ("operator: {python: x}\noutputs: [o]", "outputs", "move it into the operator"),
        ("operators: []\nbuild: make", "build", "move it into the operator"),
        ("operators: []\nparams: {a: b}", "params", "only programs and modules have parameters"),
        ("ros2: {topic: x, message_type: a/B}\noutputs: [o]\nbuild: make", "build", None),
    ],
)
def test_keys_that_a_kind_cannot_carry(keys: str, key: str, hint: str | None) -> None:
    found = problem(node_text(keys))
    assert found.key == f"nodes[0].{key}"
    assert found.message.startswith("not allowed in a node with `")
    assert found.hint == hint


def test_a_key_at_its_default_counts_as_missing() -> None:
    found = node(
        "operator: {python: x}\nrestart_policy: never\nmax_restarts: 0\noutputs: []\nargs:\nenv: {}"
    )
    assert found.kind is NodeKind.OPERATORS


def test_an_output_listed_twice_is_kept_once_with_a_warning() -> None:
    flow = read(path_node_text("outputs: [o, p, o]"))
    assert flow.nodes[0].outputs == ("o", "p")
    (warning,) = flow.warnings
    assert str(warning) == (
        "flow.yml:4:21: nodes[0].outputs[2]: `o` is listed twice, first in line 4"
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("outputs: [out]\noutput_types: {ot: x}", "`ot` is not among the outputs"),
        ("output_metadata: {o: [x]}", "`o` is not among the outputs"),
        ("output_rates: {o: 5}", "`o` is not among the outputs"),
        ("output_framing: {o: raw}", "`o` is not among the outputs"),
        ("input_types: {i: x}", "`i` is not among the inputs"),
        ("pattern: service", "unknown pattern `service`"),
    ],
)
def test_keys_about_missing_ports_are_a_warning(keys: str, message: str) -> None:
    (warning,) = read(path_node_text(keys)).warnings
    assert warning.message == message


def test_secrets_are_names_each_once() -> None:
    assert path_node("secrets: [api-key, tls.pem, api-key]").secrets == ("api-key", "tls.pem")
    assert path_node("").secrets == ()


@pytest.mark.parametrize("name", ["../key", "a/b", ".hidden", "-x", "a b", "x" * 65, "a:b"])
def test_a_name_of_a_secret_is_a_plain_file_name(name: str) -> None:
    found = error(f"secrets: ['{name}']")
    assert found.startswith("secrets[0]: is not a valid name of a secret")


def test_a_node_has_a_bounded_number_of_secrets() -> None:
    names = ", ".join(f"s{number}" for number in range(17))
    assert "at most 16" in error(f"secrets: [{names}]")


def test_a_dynamic_node_has_no_secrets() -> None:
    found = problem(node_text("path: dynamic\nsecrets: [api-key]"))
    assert "cannot give it secrets" in found.message
