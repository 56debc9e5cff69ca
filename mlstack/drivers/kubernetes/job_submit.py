"""Submitting an attempt: code and order into the remote, then the Job and what belongs to it."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import Lock

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Say
from mlstack.drivers.dvc.objects import is_executable
from mlstack.drivers.elsewhere import RemoteOrder
from mlstack.drivers.kubernetes.client import Kube
from mlstack.drivers.kubernetes.job_objects import JobPlan, build_job, build_secret, build_service
from mlstack.drivers.kubernetes.placement import may_leave_spot
from mlstack.drivers.kubernetes.remote_secret import apply_remote_secret
from mlstack.drivers.kubernetes.settings import KubernetesSettings, namespace_of, read_settings
from mlstack.drivers.remote_run.bundle import make_bundle, upload_bundle
from mlstack.drivers.remote_run.order import build_order, held_inputs, plain_inputs, submit_order
from mlstack.drivers.remote_run.remote import explained, open_remote, project_remote
from mlstack.drivers.secrets import resolve_secrets
from mlstack.graph.graph import fingerprint
from mlstack.graph.sources import FileDigest
from mlstack.runner.layout import blob_key, run_prefix
from mlstack.runner.order import Remote
from mlstack.runner.side_by_side import side_by_side
from mlstack.runner.store import Store
from mlstack.spec.address import slug


class Bundles:
    """The code bundles of one apply: made once for runs that take the same files. May be used by many threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._names: dict[tuple[str, ...], str] = {}

    def upload(self, order: RemoteOrder, store: Store, *, say: Say) -> str:
        """Have the code of a run in the remote; return the bundle's name."""
        take = plain_inputs(order.stage, order.graph, root=order.root)
        digests = {dep.path: dep.digest.md5 for dep in order.key.deps}
        wanted = tuple(f"{path} {digests[path]}" for path in take)
        with self._lock:
            if wanted not in self._names:
                self._names[wanted] = self._make(order, take, store, say)
            return self._names[wanted]

    def _make(self, order: RemoteOrder, take: tuple[str, ...], store: Store, say: Say) -> str:
        with tempfile.TemporaryDirectory(prefix="mlstack-") as folder:
            clean = order.graph.spec.require_clean
            bundle = make_bundle(order.root, order.graph, into=Path(folder), take=take, clean=clean)
            for path in bundle.left_out:
                say(f"{path} is not in the code of this run: a link that leaves the project, or a secret")
            if upload_bundle(bundle, store):
                say(f"the code is in the remote ({bundle.files} files)")
        return bundle.name


def absent_inputs(order: RemoteOrder, store: Store) -> Mapping[str, FileDigest]:
    """Return the inputs that travel by hash and that the remote lacks. Raises `MlstackError`."""
    held = held_inputs(order.stage, order.graph, root=order.root)
    wanted = [dep for dep in order.key.deps if dep.path in held]
    with explained():
        sizes = side_by_side(lambda dep: store.size(blob_key(dep.digest.md5)), wanted)
    return {dep.path: dep.digest for dep, size in zip(wanted, sizes, strict=True) if size is None}


def prefix_of(order: RemoteOrder) -> str:
    """Return the run's folder in the remote."""
    return run_prefix(slug(order.stage.address), fingerprint(order.key), again=order.again)


def make_plan(order: RemoteOrder, store: Store, remote: Remote, *, bundles: Bundles, say: Say) -> JobPlan:
    """Have code and order in the remote, and return what the objects are made of. Raises `MlstackError`."""
    settings = read_settings(order.pool)
    inside = pods_view(remote, settings)
    stage, graph = order.stage, order.graph
    executable = {dep.path for dep in order.key.deps if is_executable(str(order.root / dep.path))}
    plan = build_order(
        stage,
        graph,
        order.key,
        root=order.root,
        remote=inside,
        bundle=bundles.upload(order, store, say=say),
        resources=order.resources,
        executable=executable,
    )
    plan = replace(plan, run=prefix_of(order))
    url = submit_order(plan, store, address=stage.address)
    return JobPlan(
        stage=stage,
        pool=order.pool,
        spec=graph.spec,
        settings=settings,
        namespace=namespace_of(settings, project=graph.spec.project, environment=graph.spec.environment),
        fingerprint=plan.fingerprint,
        attempt=order.attempt,
        image=order.image,
        runner=order.runner,
        order=plan,
        order_url=url,
        store=inside.config,
        resources=order.resources,
        off_spot=order.off_spot and may_leave_spot(order.pool),
    )


def create_objects(plan: JobPlan, kube: Kube, *, root: Path) -> bool:
    """Make the Job and what belongs to it; whether it was not there yet. Can be done again, after a kill anywhere.

    Raises `MlstackError` when a secret cannot be had, before anything is made, or the cluster refuses.
    """
    address = plan.stage.address
    secrets = resolve_secrets(plan.stage.secrets, address=address, root=root, environment=os.environ).reveal()
    try:
        remote = apply_remote_secret(kube, plan.pool, plan.settings, plan.spec, plan.namespace, root=root)
        made = kube.create(build_job(msgspec.structs.replace(plan, remote_secret=remote)))
    except MlstackError as error:
        if _lacks_namespace(plan, kube):
            raise MlstackError(_namespace_gone(plan)) from error
        raise
    job = made or kube.get("Job", plan.name, plan.namespace)
    if job is None:
        raise MlstackError(_vanished(plan))
    for each in (build_secret(plan, job, secrets), build_service(plan, job)):
        if each is not None:
            kube.apply(each)
    return made is not None


def pods_view(remote: Remote, settings: KubernetesSettings) -> Remote:
    """Return the remote as pods reach it."""
    if not settings.remote_url_inside:
        return remote
    return replace(remote, config={**remote.config, "endpoint": settings.remote_url_inside})


def open_project_remote(order: RemoteOrder) -> tuple[Remote, Store]:
    """Return the project's remote, as it is reached from here. Raises `MlstackError`."""
    remote = project_remote(order.graph.spec.remote, order.root)
    return remote, open_remote(remote)


def _vanished(plan: JobPlan) -> Diagnostic:
    return Diagnostic(
        code="job-vanished",
        summary="Somebody removed the run's Job while it was started",
        detail=f"Job {plan.name} in namespace {plan.namespace} was there, and then it was not.",
        hint="Apply again.",
        address=plan.stage.address,
    )


def _lacks_namespace(plan: JobPlan, kube: Kube) -> bool:
    try:
        return kube.get("Namespace", plan.namespace) is None
    except MlstackError:  # it may not be seen, or nothing answers: what went wrong before is said
        return False


def _namespace_gone(plan: JobPlan) -> Diagnostic:
    return Diagnostic(
        code="namespace-gone",
        summary="The namespace in which the stage is to run is not there",
        detail=f"{plan.stage.address} runs in {plan.pool.address}; the cluster has no namespace {plan.namespace}, "
        "although the pool was applied.",
        hint="Make it again:",
        command=f"mlstack apply --target {plan.pool.address}",
        address=plan.stage.address,
    )
