"""What is measured on Kubernetes: plans of 100 endpoints beside `pulumi preview` of the same stacks, and scale."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.benchmarks import cluster as clusters
from tests.benchmarks.cluster import Cluster
from tests.benchmarks.cluster_project import image_references, write_project
from tests.benchmarks.measure import Row, Timing, alternate, captured, timed
from tests.benchmarks.played_runs import played_runs
from tests.benchmarks.pulumi_peer import pulumi_peer
from tests.benchmarks.rows import MLSTACK, Bench
from tests.benchmarks.synthetic import make_repository

ENDPOINTS, STAGES = 100, 200
_FEW, _MANY = 10, 1000
"""Nodes."""


def kubernetes(bench: Bench) -> Iterator[Row]:
    """A plan of 100 endpoints, whose stacks Pulumi asks of a real control plane."""
    with _cluster(bench, "endpoints", nodes=_FEW) as cluster:
        yield from _endpoints(bench, cluster)


def scale(bench: Bench) -> Iterator[Row]:
    """200 stages and 100 endpoints on 1,000 nodes with accelerators."""
    with _cluster(bench, "scale", nodes=_MANY) as cluster:
        yield from _scale(bench, cluster)


@contextmanager
def _cluster(bench: Bench, name: str, *, nodes: int) -> Iterator[Cluster]:
    folder = bench.folder / f"{name}-cluster"
    folder.mkdir()
    with clusters.cluster(folder, provider=bench.provider) as cluster:
        labels = {"nvidia.com/gpu.product": "NVIDIA-L4"}
        cluster.nodes.add(nodes, capacity={"nvidia.com/gpu": "8"}, labels=labels)
        cluster.nodes.wait_until_ready()
        yield cluster


def _project(bench: Bench, cluster: Cluster, name: str, *, stages: int) -> tuple[Bench, Path]:
    """Write a project whose images are there; returns it, and the bench whose commands find its cluster."""
    environment = bench.environment | cluster.variables
    environment["PATH"] = f"{environment['PATH']}:{cluster.pulumi.parent}"
    here = replace(bench, variables=environment)
    root = bench.folder / name
    make_repository(root, environment)
    write_project(root, cluster, name=name, endpoints=ENDPOINTS, stages=stages)
    plan = captured([MLSTACK, "plan", "--json"], cwd=root, environment=environment)
    for reference in image_references(plan):
        cluster.have_image(reference)
    return here, root


def _endpoints(bench: Bench, cluster: Cluster) -> Iterator[Row]:
    here, root = _project(bench, cluster, "endpoints", stages=0)
    applied = Timing((timed(here.mlstack("apply", "--yes", cwd=root)),))
    peer = pulumi_peer(
        root, bench.folder / "peer", project="endpoints", pulumi=cluster.pulumi, environment=here.environment
    )
    look = here.mlstack("plan", "--detailed-exitcode", cwd=root)
    ours, theirs = alternate(look, peer.preview, rounds=bench.rounds)
    work = f"plan with nothing to do, {ENDPOINTS} endpoints on Kubernetes"
    note = (
        "Kubernetes: a real control plane with played nodes, on this machine too; Pulumi's engine asks it for "
        f"{peer.objects} objects with {cluster.provider}. Pulumi is given mlstack's program as data: it starts no "
        "program of its own, and both its previews are counted."
    )
    row = Row(work, ours, "`pulumi preview --refresh`, both stacks", theirs, "1.2 times it", theirs.median * 1.2,
              notes=(note,))  # fmt: skip
    yield here.explained(row, "plan", cwd=root)

    unasked = here.mlstack("plan", "--no-refresh", "--detailed-exitcode", cwd=root)
    ours, bare = alternate(unasked, bench.bare_python(), rounds=bench.rounds)
    row = Row(work.replace("do,", "do, `--no-refresh`,"), ours, "bare Python", bare, "1 s", 1.0)
    yield here.explained(row, "plan", "--no-refresh", cwd=root)

    peer.remove()
    theirs = Timing((timed(peer.up),))
    note = (
        "Applying plans first, brings model, code and Secrets, previews what is known then, and waits until every "
        "rollout is seen to be ready; `pulumi up` makes the same objects, without a preview, and waits for none."
    )
    yield Row(f"apply {ENDPOINTS} endpoints on Kubernetes", applied, "`pulumi up --skip-preview`, both stacks", theirs,
              "", None, notes=(note,))  # fmt: skip


def _scale(bench: Bench, cluster: Cluster) -> Iterator[Row]:
    here, root = _project(bench, cluster, "scale", stages=STAGES)
    what = f"{STAGES} stages and {ENDPOINTS} endpoints on {_MANY:,} nodes"
    planned = Timing((timed(here.mlstack("plan", cwd=root)),))
    yield Row(f"first plan of {what}", planned, "", None, "", None)
    with played_runs(cluster):
        applied = Timing((timed(here.mlstack("apply", "--yes", cwd=root)),))
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    note = (
        f"Scale: {_MANY:,} played nodes of 8 GPUs and real Jobs on them; pods are played, and so is what runners leave "
        f"in the remote. The largest process of the apply took {memory:,.0f} MiB."
    )
    yield Row(f"apply {what}", applied, "", None, "", None, notes=(note,))
    look = here.mlstack("plan", "--detailed-exitcode", cwd=root)
    yield Row(f"plan with nothing to do, {what}", alternate(look, rounds=3)[0], "", None, "", None)
    unasked = here.mlstack("plan", "--no-refresh", "--detailed-exitcode", cwd=root)
    ours = alternate(unasked, rounds=3)[0]
    yield Row(f"plan with nothing to do, `--no-refresh`, {what}", ours, "", None, "", None)
