"""What must be true of cluster.yaml, checked without a cluster, a cloud account or the network.

`ray up` has no dry run, and Ray's own validation lets much through that costs money or a night: a mistyped
provider key, commands left to Ray's defaults (which install a nightly Ray), nodes with different versions.

Differs: on AWS, `ray up` asks EC2 for each node type's resources before it validates; here they may be `{}`.
"""

import copy
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from ray.autoscaler._private.util import prepare_config, validate_config

Config = Mapping[str, Any]

AWS_PROVIDER_KEYS = (
    "availability_zone",
    "cache_stopped_nodes",
    "key_pair",
    "region",
    "security_group",
    "type",
    "use_internal_ips",
)
SETUP_KEYS = ("setup_commands", "head_setup_commands", "worker_setup_commands")
START_KEYS = ("head_start_ray_commands", "worker_start_ray_commands")
AUTH_MODES = ("disabled", "token")
TOKEN_FILE = "~/.ray/auth_token"


def problems(config: Config, *, project: Path) -> list[str]:
    """Return one line per mistake, none if `ray up` may run in the directory `project`."""
    left_out = [
        f"{key} is missing: Ray would use its defaults" for key in SETUP_KEYS + START_KEYS if not config.get(key)
    ]
    refusal = ray_refusal(config)
    if left_out or refusal:  # the other checks need these keys
        return left_out + refusal
    return [
        *_provider(config["provider"]),
        *_head(config),
        *_workers(config),
        *_pins(config, tomllib.loads((project / "pyproject.toml").read_text())["project"]),
        *_mounts(config, project),
        *_start_commands(config),
        *_authentication(config),
    ]


def ray_refusal(config: Config) -> list[str]:
    """Return what Ray's own schema and validation say, as a list of one line or none."""
    try:
        validate_config(prepare_config(copy.deepcopy(dict(config))))
    except Exception as error:  # jsonschema's, click's, ValueError, TypeError, AssertionError, ...
        return [f"Ray refuses it: {type(error).__name__}: {str(error).partition(chr(10))[0]}"]
    return []


def ec2_problems(config: Config) -> list[str]:
    """Return what botocore's model of EC2 has against each node_config. Needs botocore, not the network."""
    import botocore.session
    from botocore.validate import ParamValidator

    launch = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    found = []
    for name, node_type in config["available_node_types"].items():
        node = {**node_type["node_config"], "MinCount": 1, "MaxCount": 1}
        report = ParamValidator().validate(node, launch).generate_report()
        found += [f"{name}: {line.partition(', must be one of')[0]}" for line in report.splitlines()]
        if node["InstanceType"] not in launch.members["InstanceType"].enum:
            found.append(f"{name}: InstanceType={node['InstanceType']}: EC2 has no such type")
    return found


def commands(config: Config, *keys: str) -> list[str]:
    """Return the shell commands under `keys`, in order."""
    return [command for key in keys for command in config[key]]


def _provider(provider: Config) -> Iterator[str]:
    for key in sorted(set(provider) - set(AWS_PROVIDER_KEYS)):
        yield f"provider.{key}: Ray ignores it; it knows {', '.join(AWS_PROVIDER_KEYS)}"
    if "region" not in provider:
        yield "provider.region is missing"
    if provider.get("cache_stopped_nodes", True):
        yield "provider.cache_stopped_nodes is not false: stopped workers go on costing for their disks"


def _head(config: Config) -> Iterator[str]:
    head = config["available_node_types"][config["head_node_type"]]
    if head["resources"] != {"CPU": 0}:
        yield f"head: resources={head['resources']}: must be {{CPU: 0}}, or trials run beside the driver"
    if "InstanceMarketOptions" in head["node_config"]:
        yield "head: InstanceMarketOptions: the head must be on demand, since the driver runs on it"


def _workers(config: Config) -> Iterator[str]:
    for name, node_type in config["available_node_types"].items():
        node = node_type["node_config"]
        if node.get("ImageId", "latest_dlami") == "latest_dlami":
            yield f"{name}: no ImageId: Ray would take its image of 2023, too old for torch"
        if "IamInstanceProfile" not in node:
            yield f"{name}: no IamInstanceProfile: it cannot reach the results on S3"
        if node_type.get("min_workers", 0) > node_type.get("max_workers", config["max_workers"]):
            yield f"{name}: min_workers={node_type['min_workers']} is above max_workers"
        spot = node.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        if name != config["head_node_type"] and not spot:
            yield f"{name}: InstanceMarketOptions.MarketType is not spot"


def _pins(config: Config, package: Config) -> Iterator[str]:
    words = [shlex.split(command) for command in commands(config, *SETUP_KEYS)]
    pins = [requirement for line in words for requirement in _requirements(line) if requirement.name == "ray"]
    wanted = next(r for r in map(Requirement, package["dependencies"]) if r.name == "ray").specifier
    if not pins:
        yield "ray is in none of the setup commands"
    for pin in pins:
        version = re.fullmatch(r"==([\d.]+)", str(pin.specifier))
        if version is None:
            yield f"{pin}: ray must be pinned with ==, since nodes with different versions refuse each other"
        elif version[1] not in wanted:
            yield f"{pin}: pyproject.toml says ray{wanted}"
        if "default" not in pin.extras:
            yield f"{pin}: needs the extra `default`, which has the job server"
    pythons = {line[i + 1] for line in words for i, word in enumerate(line) if word == "--python"}
    yield from _python_pin({python for python in pythons if python[0].isdigit()}, package["requires-python"])


def _requirements(line: list[str]) -> Iterator[Requirement]:
    for word in line if "install" in line else ():
        try:
            yield Requirement(word)
        except InvalidRequirement:  # an option, a path
            continue


def _python_pin(versions: set[str], wanted: str) -> Iterator[str]:
    if len(versions) != 1:
        yield f"--python: found {sorted(versions)}, must be one version for all nodes"
    for version in sorted(versions):
        if f"{version}.0" not in SpecifierSet(wanted):
            yield f"--python {version}: pyproject.toml says requires-python {wanted}"


def _mounts(config: Config, project: Path) -> Iterator[str]:
    mounts: Config = config.get("file_mounts", {})
    for remote, local in mounts.items():
        if not (project / Path(local).expanduser()).exists():
            yield f"file_mounts: {remote}: {local}: there is no {local}"
    for line in map(shlex.split, commands(config, *SETUP_KEYS)):
        for option, path in pairwise(line):
            if option in ("-e", "--editable") and path not in mounts:
                yield f"{option} {path}: not under file_mounts, which has {', '.join(mounts) or 'nothing'}"
    if "." not in mounts.values():
        yield "file_mounts: this project (.) is not sent to the nodes"


def _start_commands(config: Config) -> Iterator[str]:
    for key in START_KEYS:
        if config[key][0] != "ray stop":
            yield f"{key}: must begin with `ray stop`, or a second `ray up` meets the first one's Ray"
    for command in commands(config, *START_KEYS):
        if "0.0.0.0" in command:
            yield f"0.0.0.0 in {command!r}: listens to the whole network"
        if "pgrep" in command:
            yield f"pgrep in {command!r}: finds this very command; test the port"
    head = " ".join(config["head_start_ray_commands"])
    if "--autoscaling-config=" not in head:
        yield "head_start_ray_commands: no --autoscaling-config, so no worker would ever start"
    if "--num-cpus=0" not in head:
        yield "head_start_ray_commands: no --num-cpus=0, so the `local` provider's head would accept trials"
    ports = set(re.findall(r"(?:--port=|RAY_HEAD_IP:)(\d+)", " ".join(commands(config, *START_KEYS))))
    if len(ports) != 1:
        yield f"head and workers must name one port of Ray's, not {sorted(ports)}"


def _authentication(config: Config) -> Iterator[str]:
    modes = set()
    for key in START_KEYS:
        found = re.search(r"RAY_AUTH_MODE=(\w*) ray start", " ".join(config[key]))
        modes.add(found[1] if found else None)
        if not found or found[1] not in AUTH_MODES:
            yield f"{key}: RAY_AUTH_MODE must stand before `ray start` and be one of {', '.join(AUTH_MODES)}"
    if len(modes) > 1:
        yield f"RAY_AUTH_MODE differs between head and workers: {sorted(map(str, modes))}"
    if modes != {"token"}:
        return
    if TOKEN_FILE not in config.get("cluster_synced_files", ()):
        yield f"cluster_synced_files: workers need the head's {TOKEN_FILE}"
    if not any("ray get-auth-token --generate" in command for command in config["head_setup_commands"]):
        yield "head_setup_commands: nothing makes the token (`ray get-auth-token --generate`)"
