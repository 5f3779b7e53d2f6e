import functools
import re
import shutil
import socket
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.support.cluster_checks import commands, ec2_problems, problems, ray_refusal

PROJECT = Path(__file__).parents[2]
TEXT = (PROJECT / "cluster.yaml").read_text()
GONE = object()
HEAD, WORKER = "available_node_types/head", "available_node_types/gpu_spot"

# Stands in for uv's installer: its uv makes a venv whose `ray` writes a new token whenever it is asked.
INSTALLER = """\
mkdir -p ~/.local/bin && cat > ~/.local/bin/uv <<'UV'
#!/bin/bash
case "$1 $2" in
  "venv --python")
    mkdir -p "$4/bin"; touch "$4/bin/python"
    echo 'mkdir -p ~/.ray; echo $RANDOM$RANDOM > ~/.ray/auth_token' > "$4/bin/ray"; chmod +x "$4/bin/"* ;;
  "pip freeze") echo numpy==2.0 ;;
esac
UV
chmod +x ~/.local/bin/uv
"""


def edited(path, value):
    """Return the shipped configuration with the value at `path/to/key` set, dropped, or rewritten."""
    config = yaml.safe_load(TEXT)
    *parents, key = path.split("/")
    node = functools.reduce(lambda inner, parent: inner[parent], parents, config)
    if value is GONE:
        del node[key]
    else:
        node[key] = value(node[key]) if callable(value) else value
    return config


def replaced(old, new):
    def replace(lines):
        assert any(old in line for line in lines), f"nothing to spoil: {old!r}"
        return [line.replace(old, new) for line in lines]

    return replace


def run(command, home):
    path = f"{home}/bin:/usr/local/bin:/usr/bin:/bin"
    script = f"source ~/.bashrc; {command}"
    subprocess.run(["bash", "-c", script], env={"HOME": str(home), "PATH": path}, check=True, timeout=60)


def executable(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}")
    path.chmod(0o755)


@pytest.fixture
def home(tmp_path):
    (tmp_path / ".bashrc").touch()
    executable(tmp_path / "bin" / "curl", f"cat <<'END'\n{INSTALLER}END\n")
    return tmp_path


def test_the_shipped_file_has_no_problem():
    assert problems(yaml.safe_load(TEXT), project=PROJECT) == []


SPOILT = {
    "unknown key": ("max_worker", 3, r"Ray refuses it: ValidationError: .*'max_worker' was unexpected"),
    "unknown head type": ("head_node_type", "tete", "Ray refuses it: ValueError: `head_node_type`"),
    "unknown provider key": (
        "provider/regoin",
        "eu-west-1",
        "provider.regoin: Ray ignores it; it knows avail",
    ),
    "no region": ("provider/region", GONE, "provider.region is missing"),
    "stopped workers kept": ("provider/cache_stopped_nodes", GONE, "cache_stopped_nodes is not false"),
    "default setup": ("setup_commands", GONE, "setup_commands is missing: Ray would use its defaults"),
    "default head setup": ("head_setup_commands", [], "head_setup_commands is missing: Ray would"),
    "default start": ("worker_start_ray_commands", GONE, "worker_start_ray_commands is missing: Ray would"),
    "other Ray": (
        "head_setup_commands",
        replaced("==2.60.0", "==2.59.0"),
        r"==2.59.0: pyproject.toml says ray==2",
    ),
    "range of Rays": ("head_setup_commands", replaced("==2.60.0", "==2.60.*"), "must be pinned with =="),
    "any Ray": ("head_setup_commands", replaced("==2.60.0", ""), "must be pinned with =="),
    "no Ray": ("head_setup_commands", replaced("ray[default]==2.60.0", ""), "ray is in none of the setup"),
    "no job server": ("head_setup_commands", replaced("ray[default]", "ray"), "needs the extra `default`"),
    "old Python": ("setup_commands", replaced("3.11", "3.10"), "--python 3.10: pyproject.toml says requires"),
    "no Python": ("setup_commands", replaced("--python 3.11", ""), r"--python: found \[\], must be one"),
    "two Pythons": ("setup_commands", lambda c: [*c, "uv venv --python 3.12 b"], r"found \['3.11', '3.12'\]"),
    "no image": (f"{WORKER}/node_config/ImageId", GONE, "gpu_spot: no ImageId"),
    "old image": (f"{HEAD}/node_config/ImageId", "latest_dlami", "head: no ImageId"),
    "no profile": (f"{WORKER}/node_config/IamInstanceProfile", GONE, "gpu_spot: no IamInstanceProfile"),
    "no spot": (f"{WORKER}/node_config/InstanceMarketOptions", GONE, "gpu_spot: .*MarketType is not spot"),
    "min over max": (
        f"{WORKER}",
        lambda t: {**t, "min_workers": 5, "max_workers": 2},
        "min_workers=5 is above",
    ),
    "head on spot": (
        f"{HEAD}/node_config/InstanceMarketOptions",
        {"MarketType": "spot"},
        "must be on demand",
    ),
    "trials on the head": (f"{HEAD}/resources", {}, r"head: resources={}: must be {CPU: 0}"),
    "trials on an own head": ("head_start_ray_commands", replaced("--num-cpus=0", ""), "no --num-cpus=0"),
    "no autoscaling": (
        "head_start_ray_commands",
        replaced("--autoscaling-config", "--x"),
        "no worker would ever",
    ),
    "two ports": (
        "worker_start_ray_commands",
        replaced(":6379", ":6380"),
        r"one port of Ray's, not \['6379', '6380'",
    ),
    "no stop": (
        "worker_start_ray_commands",
        lambda lines: lines[1:],
        "worker_start.*: must begin with `ray stop`",
    ),
    "open port": ("head_start_ray_commands", replaced("host=127.0.0.1", "host=0.0.0.0"), "0.0.0.0 in"),
    "pgrep": ("head_start_ray_commands", replaced("(echo > /dev/tcp", "(pgrep -f mlflow # "), "pgrep in"),
    "no mode": (
        "worker_start_ray_commands",
        replaced("RAY_AUTH_MODE=token", ""),
        "worker.*: RAY_AUTH_MODE must stand",
    ),
    "no such mode": (
        "head_start_ray_commands",
        replaced("=token", "=tokn"),
        "head.*RAY_AUTH_MODE must stand",
    ),
    "two modes": ("worker_start_ray_commands", replaced("=token", "=disabled"), "RAY_AUTH_MODE differs"),
    "unsent token": ("cluster_synced_files", [], "workers need the head's ~/.ray/auth_token"),
    "unmade token": (
        "head_setup_commands",
        lambda lines: lines[:-1],
        "head_setup_.*: nothing makes the token",
    ),
    "mount of nothing": (
        "file_mounts",
        {"~/reprogramming": ".", "~/a": "./no"},
        "file_mounts: ~/a: ./no: there",
    ),
    "unsent project": (
        "file_mounts",
        {},
        "--editable ~/reprogramming: not under file_mounts, which has nothing",
    ),
}


@pytest.mark.parametrize(("path", "value", "complaint"), SPOILT.values(), ids=SPOILT)
def test_a_spoilt_file_is_caught(path, value, complaint):
    found = problems(edited(path, value), project=PROJECT)
    assert any(re.search(complaint, line) for line in found), found


def test_every_node_asks_for_what_ec2_knows():
    pytest.importorskip("botocore", reason="botocore, which holds EC2's model, is not a dependency")
    assert ec2_problems(yaml.safe_load(TEXT)) == []


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("InstanceType", "g6e.banana", "gpu_spot: InstanceType=g6e.banana: EC2 has no such type"),
        ("InstanceMarketOption", {}, 'gpu_spot: Unknown parameter in input: "InstanceMarketOption"'),
    ],
)
def test_a_node_that_ec2_would_refuse_is_caught(key, value, complaint):
    pytest.importorskip("botocore", reason="botocore, which holds EC2's model, is not a dependency")
    assert ec2_problems(edited(f"{WORKER}/node_config/{key}", value)) == [complaint]


def test_comments_and_readme_name_the_versions_that_the_commands_install():
    readme = PROJECT / "README.md"
    text = TEXT + (readme.read_text() if readme.exists() else "")
    dependencies = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    torch = next(r for r in map(Requirement, dependencies) if r.name == "torch")
    assert len(set(re.findall(r"ray\[[\w,]+\]==([\w.*]+)", text))) == 1
    assert all(version in torch.specifier for version in re.findall(r"torch (\d+\.\d+)", TEXT))


def test_machines_of_your_own_need_other_addresses_and_nothing_else():
    config = yaml.safe_load(TEXT)
    for key in ("available_node_types", "head_node_type", "max_workers"):
        del config[key]
    config["provider"] = {"type": "local", "head_ip": "192.0.2.10", "worker_ips": ["192.0.2.11"]}
    assert ray_refusal(config) == []


def test_setup_commands_run_twice_leave_what_they_left_once(home):
    def files():
        return {path: path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}

    snapshots = []
    for _ in range(2):
        for command in commands(yaml.safe_load(TEXT), "setup_commands", "head_setup_commands"):
            run(command, home)
        snapshots.append(files())
    assert {home / ".ray/auth_token", home / "head-packages.txt"} <= snapshots[0].keys()
    assert snapshots[0] == snapshots[1]
    assert (home / ".ray/auth_token").stat().st_mode & 0o077 == 0, "others can read the token"


@pytest.mark.skipif(shutil.which("setsid") is None, reason="the nodes are Linux, this machine has no setsid")
@pytest.mark.parametrize("is_taken", [False, True])
def test_mlflow_is_started_only_where_its_port_is_free(home, is_taken):
    executable(home / "bin" / "mlflow", 'echo "$@" > ~/arguments\n')
    (command,) = [c for c in yaml.safe_load(TEXT)["head_start_ray_commands"] if "mlflow server" in c]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if is_taken:
            taken.listen()
        run(command.replace("5000", str(taken.getsockname()[1])), home)
    deadline = time.monotonic() + (0.5 if is_taken else 10)
    while not (home / "arguments").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (home / "arguments").exists() is not is_taken
