"""Pools and endpoints on a real API server: their objects are taken as they are, and what is wrong is known before."""

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from mlstack.diagnostics import Diagnostic, MlstackError, Severity, errors_in
from mlstack.drivers.kubernetes import endpoint_rollout
from mlstack.drivers.kubernetes.client import Kube
from mlstack.drivers.kubernetes.endpoint_pod import secret_name_of
from mlstack.drivers.kubernetes.endpoint_secrets import apply_secrets
from mlstack.drivers.kubernetes.endpoint_trouble import explain_rollout
from mlstack.drivers.kubernetes.endpoints import KubernetesEndpoints, deployment_of
from mlstack.drivers.kubernetes.pool_names import pool_labels
from mlstack.drivers.kubernetes.pools import KubernetesPools
from mlstack.drivers.kubernetes.remote_secret import apply_remote_secret, remove_idle_secret
from mlstack.drivers.kubernetes.settings import read_settings
from mlstack.drivers.kubernetes.ways import cluster_identity
from mlstack.drivers.registry import check_units
from mlstack.drivers.stack_programs import as_known, recorded_unit, with_unit
from mlstack.drivers.stacks import Unit
from mlstack.graph.change import Action, Change
from mlstack.spec.address import Address, kind_of
from mlstack.spec.spec import Endpoint, Pool
from mlstack.state.state import Record
from tests.contract.cluster_units import IMAGE, QUALITY, SERVE, Project, codes, project_on
from tests.engines.kube_client import MERGE, KubeApi
from tests.engines.kubernetes import PlayedNodes
from tests.unit.drivers_kubernetes.kubernetes_projects import graph_of

pytestmark = pytest.mark.e2e


@pytest.fixture
def project(tmp_path: Path, kube_api: KubeApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setenv("KUBECONFIG", str(kube_api.kubeconfig))
    with project_on(kube_api, tmp_path) as found:
        yield found


@pytest.fixture
def someone(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Become a service account without any rights."""

    def become() -> None:
        account = {"metadata": {"name": "someone"}}
        project.api.call("POST", f"/api/v1/namespaces/{project.namespace}/serviceaccounts", account)
        path = f"/api/v1/namespaces/{project.namespace}/serviceaccounts/someone/token"
        token = project.api.call("POST", path, {"spec": {}})["status"]["token"]
        config = yaml.safe_load(Path(project.api.kubeconfig).read_text())
        config["users"][0]["user"] = {"token": token}
        file = tmp_path.parent / f"{tmp_path.name}-someone"
        file.write_text(yaml.safe_dump(config))
        monkeypatch.setenv("KUBECONFIG", str(file))

    return become


def recorded(record: Record) -> Unit:
    found = recorded_unit(record)
    assert found is not None
    return found


def on_played(nodes: PlayedNodes) -> str:
    """Return the settings of a pool whose pods are put on these nodes."""
    return f"node_selector: {{{nodes.label}: played}}, tolerations: [{{key: {nodes.label}, operator: Exists}}]"


def test_the_server_takes_every_object_and_the_pods_are_restricted_ones(
    project: Project, kwok_nodes: PlayedNodes
) -> None:
    kwok_nodes.add(1)
    project.write(f"{on_played(kwok_nodes)}, ingress: {{host: a.example}}", more="replicas: {min: 2, max: 4}")
    assert codes(project.preflight(SERVE, QUALITY)) == []
    project.apply(SERVE, QUALITY)
    project.apply(SERVE, QUALITY)  # and again, as they are
    # The namespace enforces Pod Security `restricted`, the quota counts the pods: they run all the same.
    place = f"/apis/apps/v1/namespaces/{project.namespace}/deployments/quality"
    found = project.api.wait(place, lambda found: found["status"].get("readyReplicas") == 2)
    assert endpoint_rollout.why_not_ready(found) == ""
    quota = f"/api/v1/namespaces/{project.namespace}/resourcequotas/mlstack-serve"
    project.api.wait(quota, lambda found: found["status"].get("used", {}).get("requests.cpu") == "1")


def test_a_namespace_of_somebody_else_is_left_alone(project: Project) -> None:
    project.api.make_namespace(project.namespace)
    assert codes(project.preflight(SERVE)) == ["namespace-not-ours"]
    with (project.root / "mlstack.yaml").open("a") as file:
        file.write(f"import: [{{to: compute.serve, id: namespace/{project.namespace}}}]\n")
    assert codes(project.preflight(SERVE)) == []
    project.write("create_namespace: false")
    assert codes(project.preflight(SERVE)) == []


def test_a_namespace_that_is_not_to_be_made_has_to_be_there(project: Project) -> None:
    project.write("create_namespace: false")
    assert codes(project.preflight(SERVE)) == ["namespace-missing"]


def test_a_quota_of_somebody_else_that_is_too_small_is_named(project: Project) -> None:
    project.api.make_namespace(project.namespace)
    project.write("create_namespace: false", more="replicas: {min: 2, max: 2}")
    hard = {"requests.cpu": "800m", "requests.memory": "2Gi"}
    quota = {"metadata": {"name": "theirs"}, "spec": {"hard": hard}}
    place = f"/api/v1/namespaces/{project.namespace}/resourcequotas"
    project.api.call("POST", place, quota)
    found = errors_in(project.preflight(QUALITY))
    assert [problem.code for problem in found] == ["kubernetes-quota-too-small"]
    assert "needs 1 core, and `requests.cpu` is 0.8 cores, by the ResourceQuota theirs." in found[0].detail
    project.write("create_namespace: false", more="replicas: {min: 1, max: 2}")
    assert codes(project.preflight(SERVE, QUALITY)) == []

    project.api.call("DELETE", f"{place}/theirs")
    project.api.call("POST", place, {"metadata": quota["metadata"], "spec": {"hard": hard, "scopes": ["Terminating"]}})
    project.write("create_namespace: false", more="replicas: {min: 2, max: 2}")
    assert codes(project.preflight(QUALITY)) == [], "it is for pods with a deadline"


def test_a_quota_that_others_have_filled_is_a_warning_as_they_may_go(project: Project) -> None:
    project.api.make_namespace(project.namespace)
    project.write("create_namespace: false", more="replicas: {min: 1, max: 1}")
    place = f"/api/v1/namespaces/{project.namespace}"
    project.api.call("POST", f"{place}/serviceaccounts", {"metadata": {"name": "theirs"}})
    hard = {"requests.cpu": "1", "requests.memory": "2Gi"}
    project.api.call("POST", f"{place}/resourcequotas", {"metadata": {"name": "theirs"}, "spec": {"hard": hard}})
    quota = f"{place}/resourcequotas/theirs"
    project.api.wait(quota, lambda found: "requests.cpu" in found.get("status", {}).get("used", {}))
    assert [problem.code for problem in project.preflight(QUALITY) if "quota" in problem.code] == []

    asked = {"requests": {"cpu": "800m", "memory": "256Mi"}}
    container = {"name": "one", "image": IMAGE, "resources": asked}
    pod = {"serviceAccountName": "theirs", "automountServiceAccountToken": False, "containers": [container]}
    project.api.call("POST", f"{place}/pods", {"metadata": {"name": "theirs"}, "spec": pod})
    project.api.wait(quota, lambda found: found["status"]["used"]["requests.cpu"] == "800m")
    (told,) = [problem for problem in project.preflight(QUALITY) if "quota" in problem.code]
    assert (told.code, told.severity) == ("kubernetes-quota-too-small", Severity.WARNING)
    assert "needs 0.5 cores, and `requests.cpu` is 1 core with 0.8 cores taken, by" in told.detail
    # What is there already is among what is taken.
    found = project.preflight(QUALITY, before={"namespace": project.namespace})
    assert [problem.code for problem in found if "quota" in problem.code] == []


def test_what_somebody_else_has_of_that_name_is_left_alone(project: Project) -> None:
    project.api.make_namespace(project.namespace)
    account = {"metadata": {"name": "mlstack-run-serve"}}
    project.api.call("POST", f"/api/v1/namespaces/{project.namespace}/serviceaccounts", account)
    project.write("create_namespace: false")
    (found,) = errors_in(project.preflight(SERVE))
    assert found.code == "kubernetes-name-taken"
    assert found.detail.endswith(
        f"not made by this environment:\n  ServiceAccount mlstack-run-serve in the namespace {project.namespace}"
    )
    assert "`import: [{to: compute.serve, id: serviceaccount/mlstack-run-serve}]`" in found.hint


def test_what_another_environment_of_mlstack_has_is_named_with_it_and_not_taken_in(project: Project) -> None:
    project.apply(SERVE)
    file = project.root / "mlstack.yaml"
    written = file.read_text()
    other = written.replace("project: wine", "project: beer")

    file.write_text(other)
    (found,) = errors_in(project.preflight(SERVE))
    assert found.code == "namespace-not-ours"
    assert 'was made by environment "local" of the project "wine"' in found.detail
    assert "import" not in found.hint
    file.write_text(f"{other}import: [compute.serve]\n")
    (found,) = errors_in(project.preflight(SERVE))
    assert found.code == "import-of-another-environment"
    assert f"  Namespace {project.namespace}\n" in found.detail
    file.write_text(other.replace("priority: 0", "create_namespace: false"))
    (found,) = errors_in(project.preflight(SERVE))
    assert found.code == "kubernetes-name-taken"
    assert 'belong to environment "local" of the project "wine"' in found.detail


def test_a_namespace_does_not_go_with_what_others_have_in_it(project: Project) -> None:
    project.apply(SERVE)
    name = project.namespace
    part = Change(
        address=Address(f"compute.@x.{name}#namespace-{name}"), kind=kind_of(SERVE), action=Action.DELETE, reasons=()
    )
    before = {"namespace": name, "target": "kubernetes"}
    row = Change(address=SERVE, kind=kind_of(SERVE), action=Action.DELETE, reasons=(), before=before, parts=(part,))

    def problems(row: Change) -> list[Diagnostic]:
        return [*check_units([row], graph_of(project.root), root=project.root, is_planning=True)]

    assert problems(row) == []
    place = f"/api/v1/namespaces/{name}"
    project.api.call("POST", f"{place}/serviceaccounts", {"metadata": {"name": "theirs"}})
    secure = {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "one", "image": IMAGE, "securityContext": secure}
    pod = {"serviceAccountName": "theirs", "automountServiceAccountToken": False, "containers": [container]}
    project.api.call("POST", f"{place}/pods", {"metadata": {"name": "theirs"}, "spec": pod})
    (told,) = problems(row)
    assert (told.code, told.severity) == ("namespace-has-pods", Severity.WARNING)
    assert told.detail.endswith("all that is in it, also: theirs.")

    file = project.root / "mlstack.yaml"
    written = file.read_text()
    file.write_text(
        written.replace("project: wine", "project: beer")
        .replace("serve:", "beers:")
        .replace("compute: serve", "compute: beers")
    )
    other = KubernetesPools(root=project.root)
    graph = graph_of(project.root)
    pool = graph.resources[Address("compute.beers")]
    for each in other.unit(pool, graph, other.desired(pool, graph, {}), images={}).objects:
        if each.inputs["kind"] == "NetworkPolicy" and not each.shared:
            project.client().apply(each.inputs)
    file.write_text(written)
    (told,) = problems(row)
    assert (told.code, told.severity) == ("namespace-in-use", Severity.ERROR)
    assert 'In it is also: environment "local" of the project "beer".' in told.detail
    assert problems(msgspec.structs.replace(row, parts=())) == [], "it stays, for other pools"


def test_what_settings_name_has_to_be_there(project: Project) -> None:
    project.api.make_namespace(project.namespace)
    project.write("image_pull_secret: login")
    assert [problem.code for problem in project.preflight(SERVE)][:1] == ["namespace-not-ours"]
    project.write("create_namespace: false, image_pull_secret: login, service_account: runner, priority_class: batch")
    found = errors_in(project.preflight(SERVE))
    assert codes(found) == ["kubernetes-named-missing"] * 3
    assert ["login" in found[0].detail, "runner" in found[1].detail, "batch" in found[2].detail] == [True] * 3


def test_what_belongs_into_a_namespace_to_come_is_a_warning(project: Project) -> None:
    project.write("image_pull_secret: login")
    found = project.preflight(SERVE)
    assert codes(found) == []
    (problem,) = [problem for problem in found if problem.code == "kubernetes-named-missing"]
    assert problem.command == "mlstack apply --target compute.serve"


def test_all_rights_that_are_missing_are_listed_together(project: Project, someone: Callable[[], None]) -> None:
    project.api.make_namespace(project.namespace)
    someone()
    project.write("create_namespace: false")
    (problem,) = project.preflight(SERVE, QUALITY)[:1]
    assert (problem.code, problem.severity) == ("kubernetes-rights-missing", "error")
    assert "  NetworkPolicy: get, create, patch, delete" in problem.detail.splitlines()
    assert "  PriorityClass (of the whole cluster): get, create, patch, delete" in problem.detail.splitlines()


def test_who_may_not_make_things_may_plan_them(project: Project, someone: Callable[[], None]) -> None:
    project.api.make_namespace(project.namespace)
    someone()
    found = project.preflight(SERVE, QUALITY, is_planning=True)
    assert codes(found) == []
    (rights,) = [problem for problem in found if problem.code == "kubernetes-rights-missing"]
    assert rights.severity == "warning"
    assert "  Deployment: get, create, patch, delete" in rights.detail.splitlines()


def test_what_is_wrong_whoever_applies_is_an_error_of_a_plan(project: Project) -> None:
    project.api.make_namespace(project.namespace)
    assert codes(project.preflight(SERVE, QUALITY, is_planning=True)) == ["namespace-not-ours"]
    before = {"cluster": "another", "target": "kubernetes"}
    assert codes(project.preflight(SERVE, before=before, is_planning=True)) == ["kubernetes-other-cluster"]


def test_questions_do_not_grow_with_the_number_of_endpoints(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    send = Kube._send

    def counted(self: Kube, method: str, path: str, **options: Any) -> Any:
        asked.append(f"{method} {path} {options.get('body')}")
        return send(self, method, path, **options)

    monkeypatch.setattr(Kube, "_send", counted)
    project.api.make_namespace(project.namespace)

    def questions(count: int) -> int:
        more = [f"  e{number}: {{compute: serve, model: wine}}" for number in range(count)]
        project.write("create_namespace: false")
        file = project.root / "mlstack.yaml"
        file.write_text("\n".join([file.read_text(), *more]))
        asked.clear()
        addresses = [Address(f"endpoints.e{number}") for number in range(count)]
        assert codes(project.preflight(SERVE, *addresses, is_planning=True)) == []
        assert len(asked) == len(set(asked)), "nothing is asked twice"
        return len(asked)

    # Of few, the objects are asked for by name; of many, they are listed, which takes the right to.
    assert questions(60) == questions(30) <= questions(16)


def test_a_wrong_token_is_told_from_everything_else(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = yaml.safe_load(Path(project.api.kubeconfig).read_text())
    config["users"][0]["user"] = {"token": "wrong"}
    file = tmp_path.parent / f"{tmp_path.name}-wrong"
    file.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(file))
    assert codes(project.preflight(SERVE)) == ["kubernetes-unauthorized"]


def test_an_accelerator_that_no_node_has_is_known_before(project: Project, kwok_nodes: PlayedNodes) -> None:
    kwok_nodes.add(1, capacity={"nvidia.com/gpu": "8"}, labels={"nvidia.com/gpu.product": "NVIDIA-L4"})
    gpu = "accelerator: [nvidia-h100], limits: {gpu: 1}"
    project.write(limits=gpu)
    assert codes(project.preflight(SERVE)) == ["no-node-fits"]
    project.write(limits=f"{gpu}, nodes: {{min: 0, max: 2}}")
    (problem,) = project.preflight(SERVE)
    assert problem.severity == "warning"


ELSEWHERE = {"context": "as-it-was", "kubeconfig": "~/of-a-laptop", "api_server": "https://10.0.0.1:6443"}


def test_another_cluster_than_that_of_the_record_is_not_touched(project: Project, someone: Callable[[], None]) -> None:
    project.api.make_namespace(project.namespace)
    assert codes(project.preflight(SERVE, before={"cluster": "another"})) == ["kubernetes-other-cluster"]
    assert codes(project.preflight(SERVE, before=ELSEWHERE | {"cluster": "another"})) == ["kubernetes-other-cluster"]
    project.write("create_namespace: false")
    assert codes(project.preflight(QUALITY, before=ELSEWHERE | {"cluster": "another"})) == [], "it moves"
    someone()
    (problem,) = errors_in(project.preflight(SERVE, before=ELSEWHERE | {"cluster": "some"}, is_planning=True))
    assert problem.code == "kubernetes-cluster-unsure"
    assert "`context: as-it-was` and `kubeconfig: ~/of-a-laptop` on https://10.0.0.1:6443" in problem.detail


@pytest.mark.parametrize("way", ["context", "kubeconfig", "server", "login"])
def test_a_cluster_is_told_by_what_it_is_and_not_by_what_it_is_called(
    project: Project, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contexts are renamed; another machine has other files and logins, and knows the server by another address."""
    config = yaml.safe_load(Path(project.api.kubeconfig).read_text())
    (context,), (cluster,), (user,) = config["contexts"], config["clusters"], config["users"]
    context["name"] = config["current-context"] = "another-name"
    if way == "server":
        cluster["cluster"]["server"] = cluster["cluster"]["server"].replace("127.0.0.1", "localhost")
    if way == "login":
        status = {
            "clientCertificateData": b64decode(user["user"].pop("client-certificate-data")).decode(),
            "clientKeyData": b64decode(user["user"].pop("client-key-data")).decode(),
        }
        said = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
        (tmp_path.parent / f"{tmp_path.name}-said").write_text(json.dumps(said))
        user["user"]["exec"] = {
            "apiVersion": said["apiVersion"],
            "command": "/bin/cat",
            "args": [str(tmp_path.parent / f"{tmp_path.name}-said")],
            "interactiveMode": "Never",
        }
    file = tmp_path.parent / f"{tmp_path.name}-another"
    file.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(file))
    project.write(f"kubeconfig: {file}" if way == "kubeconfig" else "context: another-name")
    was = {"cluster": cluster_identity(project.client()), "namespace": project.namespace, "target": "kubernetes"}
    there, elsewhere = project.seen_from_here(ELSEWHERE | was), ELSEWHERE | was | {"cluster": "another"}
    named = {name: there.attributes[name] for name in ("context", "kubeconfig") if name in there.attributes}
    assert named == ({"kubeconfig": str(file)} if way == "kubeconfig" else {"context": "another-name"})
    assert recorded(there).provider.settings == named
    assert as_known(project.unit(SERVE), [recorded(there)]).provider == recorded(there).provider
    assert codes(project.preflight(SERVE, before=there.attributes)) == []
    assert project.seen_from_here(elsewhere).attributes["context"] == "as-it-was"


def test_the_secret_for_the_remote_goes_when_no_pod_takes_it_any_more(project: Project) -> None:
    """A pod that takes it may have to start again: an endpoint whose turn is later, or one that is taken back."""
    project.api.make_namespace(project.namespace)
    project.write("remote_env: {AWS_REGION: somewhere}")
    client, graph = project.client(), graph_of(project.root)
    pool = graph.spec.of(Pool)[SERVE]
    had = read_settings(pool)
    name = apply_remote_secret(client, pool, had, graph.spec, project.namespace, root=project.root)
    takes = {"name": "main", "image": "none", "envFrom": [{"secretRef": {"name": name}}]}
    about = {"name": "takes-it", "namespace": project.namespace, "labels": pool_labels(SERVE)}
    project.api.call(
        "POST", f"/api/v1/namespaces/{project.namespace}/pods", {"metadata": about, "spec": {"containers": [takes]}}
    )
    without = msgspec.structs.replace(had, remote_env={})
    for settings, is_there in ((had, True), (without, True), (without, False)):
        remove_idle_secret(client, pool, settings, project.namespace)
        assert (client.get("Secret", name, project.namespace) is not None) is is_there
        if settings is without and is_there:
            project.api.call("DELETE", f"/api/v1/namespaces/{project.namespace}/pods/takes-it?gracePeriodSeconds=0")


def test_an_endpoint_that_is_taken_back_leaves_the_secrets_of_what_was_there(project: Project) -> None:
    project.api.make_namespace(project.namespace)
    project.write(more="env: {TOKEN: {secret: 'env://HOME'}}")
    client, spec = project.client(), graph_of(project.root).spec
    endpoint = spec.of(Endpoint)[QUALITY]
    before, now = "quality-secrets-before", "quality-secrets-now"
    for name in (before, now):
        apply_secrets(client, endpoint, spec, name, project.namespace, root=project.root)
    unit = project.unit(QUALITY)
    deployment = deployment_of(unit)
    taken = secret_name_of(deployment.inputs["spec"]["template"])
    text = msgspec.json.encode(deployment.inputs).replace(taken.encode(), before.encode())
    was = msgspec.structs.replace(deployment, inputs=msgspec.json.decode(text))
    record = with_unit(
        Record(address=QUALITY, driver="kubernetes-endpoint"), msgspec.structs.replace(unit, objects=(was,))
    )
    for known, left in ((record, [before]), (None, [])):
        context = msgspec.structs.replace(project.context([]), record=known)
        KubernetesEndpoints(root=project.root).taken_back(unit, context)
        there = [each["metadata"]["name"] for each in client.listing("Secret", project.namespace)]
        assert there == left


def test_an_endpoint_that_goes_to_another_cluster_is_told_of_the_gap(project: Project) -> None:
    project.api.make_namespace(project.namespace)
    project.write("create_namespace: false")
    found = project.preflight(QUALITY, before=ELSEWHERE | {"cluster": "another", "namespace": project.namespace})
    (problem,) = [each for each in found if each.code == "endpoint-moves-with-a-gap"]
    assert problem.severity == "warning"
    assert "(`context: as-it-was` and `kubeconfig: ~/of-a-laptop`)" in problem.detail


def test_pods_that_a_quota_refuses_are_told_with_their_reason(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_rollout, "PATIENCE", 0.0)
    nowhere = "node_selector: {tests/nowhere: here}"  # the session may have a real node by now
    project.write(nowhere, limits="limits: {cpu: 700m}, nodes: {min: 0, max: 1}", more="replicas: {min: 2, max: 2}")
    project.apply(SERVE)
    quota = f"/api/v1/namespaces/{project.namespace}/resourcequotas/mlstack-serve"
    project.api.wait(quota, lambda found: bool(found.get("status", {}).get("used")))  # until then it lets everything in
    project.apply(QUALITY)
    said: list[str] = []
    unit, context = project.unit(QUALITY), project.context(said)
    with pytest.raises(MlstackError) as raised:
        endpoint_rollout.wait_for_rollout(project.client(), unit, context)
    problem = raised.value.diagnostics[0]
    assert problem.code == "endpoint-pods-refused"
    assert "exceeded quota: mlstack-serve" in problem.detail
    events = f"/api/v1/namespaces/{project.namespace}/events"
    project.api.wait(events, lambda found: any(each["reason"] == "FailedScheduling" for each in found["items"]))
    told = explain_rollout(project.client(), unit, problem, context).diagnostic
    assert told.detail.startswith(problem.detail)
    assert "  FailedScheduling: " in told.detail  # other tests may have nodes of their own in this cluster


def test_nothing_is_applied_while_its_service_has_old_pods(project: Project, kwok_nodes: PlayedNodes) -> None:
    kwok_nodes.add(1)
    project.write(on_played(kwok_nodes), more="replicas: {min: 2, max: 2}")
    project.apply(SERVE, QUALITY)
    inside = f"namespaces/{project.namespace}"
    project.api.wait(f"/apis/apps/v1/{inside}/deployments/quality", lambda it: it["status"].get("readyReplicas") == 2)
    new = {each["metadata"]["uid"] for each in project.api.call("GET", f"/api/v1/{inside}/pods")["items"]}
    # A pod that has gone, which the controller would take off the list as soon as it gets to it.
    gone = {"kind": "Pod", "name": "quality-old", "namespace": project.namespace, "uid": "gone"}
    entry = {
        "metadata": {"name": "quality-late", "labels": {endpoint_rollout.SLICE_OF: "quality"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.9"], "conditions": {"ready": True}, "targetRef": gone}],
    }
    slices = f"/apis/discovery.k8s.io/v1/{inside}/endpointslices"
    project.api.wait(slices, lambda found: sum(map(_ready_in, found["items"])) == 2)
    project.api.call("POST", slices, entry)
    said: list[str] = []
    unit, context = project.unit(QUALITY), project.context(said)
    context.stop.set()
    with pytest.raises(MlstackError) as raised:
        endpoint_rollout.wait_for_rollout(project.client(), unit, context)
    assert (raised.value.diagnostics[0].code, said) == ("interrupted", [endpoint_rollout.OLD_PODS])
    assert endpoint_rollout.ready_pods(project.client(), "quality", project.namespace) == new | {"gone"}
    project.api.call("DELETE", f"{slices}/quality-late")
    # The API server has a list of its own, which another controller writes.
    listed = f"/api/v1/{inside}/endpoints/quality"
    one = project.api.wait(listed, lambda found: sum(map(_ready_in, found.get("subsets") or ())) == 2)["subsets"][0]
    late = {"ip": "10.0.0.9", "targetRef": gone}
    changed = {"subsets": [one | {"addresses": [*one["addresses"], late]}]}
    project.api.call("PATCH", listed, changed, kind=MERGE)
    assert endpoint_rollout.ready_pods(project.client(), "quality", project.namespace) == new | {"gone"}
    project.api.call("PATCH", listed, {"subsets": [one]}, kind=MERGE)
    assert endpoint_rollout.ready_pods(project.client(), "quality", project.namespace) == new


def _ready_in(one: dict[str, Any]) -> int:
    sliced = sum(bool(each["conditions"].get("ready")) for each in one.get("endpoints") or ())
    return sliced + len(one.get("addresses") or ())
