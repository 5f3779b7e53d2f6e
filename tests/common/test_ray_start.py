"""Cores under a container's quota, and Ray's start-up errors."""

import os
import subprocess
import sys

import pytest

from harness.common.ray_start import check_fits, cpu_count, cpu_quota


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def v2(root, path, *limits):
    """Write a v2 hierarchy: the limit of each folder from the mount down to the process's own."""
    write(root / "proc/self/cgroup", f"0::{path}\n")
    folder = root / "sys/fs/cgroup"
    for part, limit in zip(["", *filter(None, path.split("/"))], limits, strict=True):
        folder = folder / part
        if limit:
            write(folder / "cpu.max", f"{limit}\n")


def v1(root, quota, *, controllers="cpu,cpuacct", folder="cpu,cpuacct", path="/"):
    write(root / "proc/self/cgroup", f"12:memory:/m\n4:{controllers}:{path}\n1:name=systemd:/\n")
    write(root / f"sys/fs/cgroup/{folder}{path}/cpu.cfs_quota_us", f"{quota}\n")
    write(root / f"sys/fs/cgroup/{folder}{path}/cpu.cfs_period_us", "100000\n")


@pytest.mark.parametrize(
    ("make", "quota"),
    [
        (lambda root: v2(root, "/", "100000 100000"), 1.0),
        (lambda root: v2(root, "/", "150000 100000"), 1.5),
        (lambda root: v2(root, "/", "max 100000"), None),
        (lambda root: v2(root, "/a/b", None, "200000 100000", "max 100000"), 2.0),
        (lambda root: v2(root, "/a", None, None), None),
        (lambda root: v1(root, 250000), 2.5),
        (lambda root: v1(root, -1), None),
        (lambda root: v1(root, 50000, folder="cpu"), 0.5),
        (lambda root: v1(root, 300000, path="/docker/x"), 3.0),
        (lambda root: None, None),
    ],
)
def test_the_quota_of_a_container_is_read(tmp_path, make, quota):
    make(tmp_path)
    assert cpu_quota(tmp_path) == quota


@pytest.mark.parametrize(("limit", "cores"), [("150000 100000", 2), ("20000 100000", 1), ("6400000 100000", 4)])
def test_cores_are_the_affinity_or_the_quota_rounded_up(tmp_path, monkeypatch, limit, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    v2(tmp_path, "/", limit)
    assert cpu_count(tmp_path) == cores


def test_a_trial_that_does_not_fit_this_machine_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"gpus-per-trial=0\.5: .*no GPU"):
        check_fits(cpus=None, gpus=0.5, devices=tmp_path)
    with pytest.raises(ValueError, match="cpus-per-trial=9999: "):
        check_fits(cpus=9999, gpus=None)
    (tmp_path / "nvidia0").touch()
    check_fits(cpus=1, gpus=1, devices=tmp_path)


@pytest.mark.drill
def test_ray_that_cannot_start_names_the_variable_that_helps(tmp_path):
    place = tmp_path / ("a" * 120)
    place.mkdir()
    script = """
from harness.common.cli import report_errors, prepare_environment
prepare_environment(joins_cluster=False)
with report_errors(lambda: "go on with --resume s"):
    from harness.common.ray_start import start_ray
    start_ray(None)
"""
    environment = {**os.environ, "RAY_TMPDIR": str(place), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert "RAY_TMPDIR=DIR" in done.stderr
    assert "--resume s" in done.stderr
