"""A study on a cluster of two Ray nodes, joined by its address, and a node that goes away."""

import subprocess
import sys
import textwrap
from contextlib import contextmanager

import pytest

from tests.support.studies import make_workshop

pytestmark = pytest.mark.drill

CLUSTER = textwrap.dedent("""
    import sys
    from ray.cluster_utils import Cluster
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    print("address", cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "lose a node":
            cluster.remove_node(second, allow_graceful=False)
        else:
            break
    cluster.shutdown()
""")


@contextmanager
def two_nodes(environment):
    command = [sys.executable, "-c", CLUSTER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        try:
            address = next(line.split()[1] for line in process.stdout if line.startswith("address"))
            yield address, process.stdin
        finally:
            process.stdin.write("end\n")
            process.stdin.flush()
            process.wait(60)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return make_workshop(tmp_path_factory.mktemp("cluster"))


def test_a_study_uses_both_nodes_of_a_cluster_and_outlives_one(workshop, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    flags = ("--trials", "4", "--epochs", "40", "--scheduler", "none")
    with two_nodes(workshop.environment) as (address, orders):
        process = workshop.start(workshop.new("both", *flags, "--address", address))
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "trial 0 done" in line or "trial 1 done" in line:
                orders.write("lose a node\n")
                orders.flush()
                break
        rest, _ = process.communicate(timeout=240)
        said = "".join(lines) + rest
    assert process.returncode == 0, said
    rows = workshop.results("both")
    assert {row["state"] for row in rows} == {"done"}
    assert {row["epochs"] for row in rows} == {40}
    assert "2 at a time" in said
