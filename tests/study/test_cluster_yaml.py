"""cluster.yaml, checked without a cluster, a cloud account or the network.

`ray up` has no dry run, and Ray's own validation lets much through that costs money or a night: a mistyped provider
key, commands left to Ray's defaults (which install a nightly Ray), nodes with different versions.

Differs: on AWS, `ray up` asks EC2 for each node type's resources before it validates; here they may be `{}`.
"""

import copy
import re
import shlex
import shutil
import socket
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from ray.autoscaler._private.util import prepare_config, validate_config

PROJECT = Path(__file__).parents[2]
TEXT = (PROJECT / "cluster.yaml").read_text()
CONFIG = yaml.safe_load(TEXT)
SETUP = ("setup_commands", "head_setup_commands", "worker_setup_commands")
START = ("head_start_ray_commands", "worker_start_ray_commands")
NODES = CONFIG["available_node_types"]
HEAD = NODES[CONFIG["head_node_type"]]
WORKERS = [node for node in NODES.values() if node is not HEAD]
PROVIDER_KEYS = {  # Ray ignores others
    "availability_zone",
    "cache_stopped_nodes",
    "key_pair",
    "region",
    "security_group",
    "type",
    "use_internal_ips",
}

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


def commands(*keys):
    return [command for key in keys for command in CONFIG[key]]


def check_with_ray(config):
    """Let Ray's own schema and validation raise."""
    validate_config(prepare_config(copy.deepcopy(config)))


def test_ray_accepts_the_file_and_its_check_would_refuse_a_wrong_key():
    check_with_ray(CONFIG)
    with pytest.raises(Exception, match="max_worker"):
        check_with_ray({**CONFIG, "max_worker": 3})


def test_no_commands_are_left_to_rays_defaults():
    assert all(CONFIG[key] for key in (*SETUP, *START))


def test_stopped_workers_cost_nothing_and_every_provider_key_is_known():
    assert set(CONFIG["provider"]) <= PROVIDER_KEYS
    assert CONFIG["provider"]["region"]
    assert CONFIG["provider"]["cache_stopped_nodes"] is False


def test_the_head_is_on_demand_and_runs_no_trial():
    assert HEAD["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in HEAD["node_config"]
    assert any("--num-cpus=0" in command and "--autoscaling-config=" in command for command in commands(START[0]))


def test_workers_are_spot_machines_with_an_image_and_access_to_the_results():
    for node in NODES.values():
        assert node["node_config"]["ImageId"] != "latest_dlami"  # Ray's own, of 2023, is too old for torch
        assert node["node_config"]["IamInstanceProfile"]
        assert node.get("min_workers", 0) <= node["max_workers"]
    assert [node["node_config"]["InstanceMarketOptions"]["MarketType"] for node in WORKERS] == ["spot"]


def test_all_nodes_install_the_versions_that_the_project_asks_for():
    package = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    required = {r.name: r.specifier for r in map(Requirement, package["dependencies"])}
    (pin,) = {word for line in map(shlex.split, commands(*SETUP)) for word in line if word.startswith("ray[")}
    assert Requirement(pin).extras == {"default"}  # which has the job server
    (version,) = re.findall(r"==([\d.]+)$", pin)
    assert version in required["ray"]
    (python,) = set(re.findall(r"--python (\d[\d.]*)", " ".join(commands(*SETUP))))
    assert f"{python}.0" in SpecifierSet(package["requires-python"])
    assert all(version in required["torch"] for version in re.findall(r"torch (\d+\.\d+)", TEXT))
    readme = (PROJECT / "README.md").read_text()
    assert set(re.findall(r"ray\[[\w,]+\]==([\w.*]+)", TEXT + readme)) == {version}


def test_the_project_is_sent_and_installed_on_every_node():
    (remote,) = (remote for remote, local in CONFIG["file_mounts"].items() if local == ".")
    assert sum(f"--editable {remote}" in command for command in commands(*SETUP)) == 2


def test_ray_starts_anew_on_one_port_with_the_heads_token_and_listens_to_no_network():
    assert [CONFIG[key][0] for key in START] == ["ray stop"] * 2
    text = " ".join(commands(*START))
    assert len(set(re.findall(r"(?:--port=|RAY_HEAD_IP:)(\d+)", text))) == 1
    assert re.findall(r"RAY_AUTH_MODE=(\w*) ray start", text) == ["token"] * 2
    assert "0.0.0.0" not in text
    assert "~/.ray/auth_token" in CONFIG["cluster_synced_files"]
    assert any("ray get-auth-token --generate" in command for command in CONFIG["head_setup_commands"])


def test_machines_of_your_own_need_other_addresses_and_nothing_else():
    config = copy.deepcopy(CONFIG)
    for key in ("available_node_types", "head_node_type", "max_workers"):
        del config[key]
    config["provider"] = {"type": "local", "head_ip": "192.0.2.10", "worker_ips": ["192.0.2.11"]}
    check_with_ray(config)


def test_setup_commands_run_twice_leave_what_they_left_once(home):
    def files():
        return {path: path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}

    snapshots = []
    for _ in range(2):
        for command in commands("setup_commands", "head_setup_commands"):
            run(command, home)
        snapshots.append(files())
    assert {home / ".ray/auth_token", home / "head-packages.txt"} <= snapshots[0].keys()
    assert snapshots[0] == snapshots[1]
    assert (home / ".ray/auth_token").stat().st_mode & 0o077 == 0, "others can read the token"


@pytest.mark.skipif(shutil.which("setsid") is None, reason="the nodes are Linux, this machine has no setsid")
@pytest.mark.parametrize("is_taken", [False, True])
def test_mlflow_is_started_only_where_its_port_is_free(home, is_taken):
    executable(home / "bin" / "mlflow", 'echo "$@" > ~/arguments\n')
    (command,) = [c for c in commands(START[0]) if "mlflow server" in c]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if is_taken:
            taken.listen()
        run(command.replace("5000", str(taken.getsockname()[1])), home)
    deadline = time.monotonic() + (0.5 if is_taken else 10)
    while not (home / "arguments").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (home / "arguments").exists() is not is_taken
