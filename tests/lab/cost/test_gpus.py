"""GPUs: their names, their compiler, and what its programs cost."""

import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys

import jax
import optax
import pytest

import lion_jax
from lion_jax import lab
from lion_jax._installation import to_install
from lion_jax.lab import RequestError, cli
from lion_jax.lab.cost.gpus import GPUS
from lion_jax.lab.cost.names import parse
from lion_jax.lab.cost.run import cost, pod_cost
from lion_jax.lab.cost.topology import describe
from lion_jax.lab.cost.wires import Hosts, linked

TREE = {"w": (8192, 4096), "b": (4096,)}


@pytest.mark.parametrize(
    ("name", "links", "axes"),
    [
        ("h100", Hosts(1, 1), ("gpu",)),
        ("a100:8", Hosts(1, 8), ("gpu",)),
        ("h200:32x8", Hosts(32, 8), ("gpu", "host")),
        ("b200:2x3", Hosts(2, 3), ("gpu", "host")),
    ],
)
def test_a_name_says_how_many_gpus_are_on_how_many_hosts(name, links, axes):
    gpu, extents = parse(name)
    assert gpu is GPUS[name[:4]]
    assert linked(gpu, extents) == links
    assert gpu.axes(extents) == axes


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("h900", "unknown topology 'h900'. Possible: v5e:16x16, v6e:16x16, v5p:16x16x24, "),
        ("h900", "a100, h100, h200, b200 (h100:8 on one host, h100:32x8 on 32)"),
        *(
            (f"h100:{shape}", "; possible: h100, h100:1 to h100:8 on one host, ")
            for shape in ("16", "4x16", "0", "0x8", "x8", "2x2x2", "many", "", "1025x8", "8x-1")
        ),
    ],
)
def test_gpus_that_no_host_has_are_refused_in_one_line(topology, message, tmp_path, capsys):
    assert cli.main(["cost", f"--topology={topology}", f"--output={tmp_path / 'new'}"]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("versions", "problem"),
    [
        ({}, "is missing"),
        (
            {"jax-cuda13-plugin": "0.1.2", "jax-cuda13-pjrt": "9.8"},
            "another version than jaxlib 9.8 (jax-cuda13-plugin is 0.1.2, jax-cuda13-pjrt is 9.8)",
        ),
        (
            {"jax-cuda12-plugin": "9.8"},
            "than jaxlib 9.8 (jax-cuda12-plugin is 9.8, jax-cuda12-pjrt is missing)",
        ),
    ],
)
def test_without_the_wheels_of_this_jax_it_says_what_to_install(versions, problem, monkeypatch):
    def version(package):
        if package in versions:
            return versions[package]
        raise importlib.metadata.PackageNotFoundError(package)

    versions = versions | {"jaxlib": "9.8"}
    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(RequestError) as refusal:
        describe("h100:8")
    message = str(refusal.value)
    assert problem in message
    assert f"; try: {to_install('gpus')}" in message
    assert "\n" not in message


def compiling(test):
    """The marks of a test that asks the compiler."""
    missing = importlib.util.find_spec("jax_cuda13_plugin") is None
    needs = pytest.mark.skipif(missing, reason="needs jax_cuda13_plugin, from the extra gpus")
    return pytest.mark.slow(needs(test))


@compiling
@pytest.mark.parametrize("name", GPUS)
@pytest.mark.parametrize(("tx", "bytes_"), [(lion_jax.lion(1e-3), 20), (optax.adamw(1e-3), 28)])
def test_a_step_moves_what_it_must_in_a_kernel_for_each_leaf(name, tx, bytes_):
    moved = pod_cost(tx, TREE, name, "single")
    assert moved.hbm_bytes / moved.held == pytest.approx(bytes_, rel=1e-4)
    assert moved.floors.hbm / moved.held == pytest.approx(bytes_, rel=1e-4)
    assert moved.temporary_bytes < 4096
    assert moved.copies == 0
    assert moved.kernels - moved.traffic.most.small_kernels == len(TREE)


@compiling
def test_elementwise_rules_send_nothing_and_trust_ratios_scalars():
    lion, lamb = cost(TREE, ["lion", "lamb"], "h100:32x8", "fsdp")
    assert lion.exchanges == ()
    assert lion.held == pytest.approx(lion.parameters / 256)
    assert 0 < lamb.sent_bytes < 100
    assert not any("Links are a model" in line for line in lion.lines())


@compiling
@pytest.mark.parametrize(("topology", "hosts"), [("h100:8", 1), ("h100:32x8", 32)])
def test_replicas_send_their_gradients_within_hosts_and_then_between(topology, hosts):
    moved = pod_cost("lion", TREE, topology, "data")
    whole, record = 4 * moved.parameters, moved.record()
    assert record["nvlink_bytes"] == pytest.approx(2 * 7 / 8 * whole)
    assert record["network_bytes"] == pytest.approx(2 * (hosts - 1) / hosts * whole / 8)
    assert moved.sent_bytes == pytest.approx(moved.floors.sent)
    assert moved.network_bytes == pytest.approx(moved.network_floor)


@compiling
def test_signs_leave_a_host_last():
    moved = pod_cost("lion", TREE, "h100:4x8", "sign_gather")
    assert moved.network_bytes < 0.11 * moved.sent_bytes  # (4 - 1) / (32 - 1), and padding
    vote = pod_cost("lion", TREE, "h100:4x8", "vote")
    assert vote.sent_bytes < 0.41 * vote.parameters


@compiling
def test_the_command_prints_kernels_and_the_links_assumed(tmp_path, capsys):
    arguments = ["--topology=h100:2x4", "--sharding=data", "--model=digits"]
    assert cli.main(["cost", "--rules=lion,adamw", *arguments, f"--output={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert "kernels" in out
    assert "Links are a model: NVLink's switch joins the 4 GPUs of a host, 450 GB/s" in out
    loaded = lab.load(tmp_path)
    assert [c.rule for c in loaded] == ["lion", "adamw"]
    assert loaded.records()[0]["kernels"] > 0


LATE = """
import jax, jax.numpy as jnp
{first}
from lion_jax import lab
cost = lab.pod_cost("lion", {{"w": (512, 512)}}, "h100:2", "single", on_progress=lambda p: None)
assert round(cost.hbm_bytes / cost.held) == 20
"""


@compiling
@pytest.mark.parametrize("first", ["", "jnp.ones(3).sum()"], ids=["before jax starts", "after"])
def test_the_function_needs_no_setting_be_jax_started_or_not(first):
    environment = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"}
    environment |= {"TPU_SKIP_MDS_QUERY": "1"}  # of libtpu, where it is installed, too
    code = LATE.format(first=first)
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=300)


@compiling
def test_what_does_not_fit_is_refused():
    message = r"step of lion needs 86\.4 GB of each GPU, which has 84\.9\. Try .* more GPUs, or"
    with pytest.raises(RequestError, match=message):
        pod_cost("lion", {"w": (120_000, 120_000)}, "h100:2", "fsdp")
    assert pod_cost("lion", {"w": (120_000, 120_000)}, "h100:8", "fsdp").hbm_bytes > 0


@compiling
def test_the_environment_and_the_settings_stay_as_they_are():
    before = dict(os.environ), jax.config.jax_platforms
    pod_cost("lion", TREE, "h100:2")
    assert (dict(os.environ), jax.config.jax_platforms) == before
