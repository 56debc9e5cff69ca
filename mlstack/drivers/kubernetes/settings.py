"""What the file says of the place on Kubernetes: `targets: {kubernetes: {…}}` or a pool's `settings`."""

import re
from typing import Annotated, Any, Literal

import msgspec

from mlstack import decoding
from mlstack.diagnostics import Diagnostic, MlstackError, did_you_mean
from mlstack.drivers.kubernetes.check_settings import wrong_settings
from mlstack.drivers.kubernetes.names import dns_name
from mlstack.spec.address import Address
from mlstack.spec.quantity import read_duration
from mlstack.spec.spec import Pool

_TYPES = re.compile(r"Expected `(?P<wanted>[^`]+)`, got `(?P<is>[^`]+)` - at `\$\.(?P<key>[^`]+)`")
_WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "a map",
    "array": "a list",
    "null": "empty",
}


class Ingress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How endpoints are reached through an Ingress. `class_name` is `class` in the file, `tls` names a Secret.

    A host that begins with `*.` gets an endpoint's name for its star.
    """

    class_name: str = msgspec.field(default="", name="class")
    host: str = ""
    tls: str = ""


class Gateway(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The Gateway that endpoints' routes belong to; `namespace` "" is the pool's, `section` the name of a listener.

    A hostname that begins with `*.` gets an endpoint's name for its star. `https` says how people reach it.
    """

    name: str
    namespace: str = ""
    hostname: str = ""
    section: str = ""
    https: bool = False


class Autoscale(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What replicas are added for: `cpu` (per cent of what is asked for), or `requests` in flight of each replica."""

    on: Literal["cpu", "requests"] = "cpu"
    target: Annotated[int, msgspec.Meta(ge=1)] = 80


class KubernetesSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a pool with `target: kubernetes`.

    `kubeconfig`, `context` and `in_cluster` say how the API server is found (default: as kubectl does). `remote_env`
    are variables with which pods reach the remote: text, or `{secret: …}`. `remote_url_inside` is the remote's endpoint
    as pods reach it. `keep_failed` is for how long a failed pod waits (a duration). `queue` is a LocalQueue of Kueue,
    made for `cluster_queue` if that is given. `egress` is what pods may reach beside the remote (`CIDR:PORT`,
    `:PORT`, `namespace/NAME`). The last four are what images are built with, as for the target docker.
    """

    context: str | None = None
    namespace: str | None = None
    kubeconfig: str | None = None
    in_cluster: bool = False
    create_namespace: bool = True
    service_account: str | None = None
    priority: int = 0
    priority_class: str | None = None
    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    gpu_resource: str | None = None
    accelerator_labels: dict[str, dict[str, str]] = {}
    queue: str | None = None
    cluster_queue: str | None = None
    egress: list[str] = []
    autoscale: Autoscale = Autoscale()
    image_pull_secret: str | None = None
    remote_env: dict[str, Any] = {}
    remote_url_inside: str | None = None
    keep_failed: str | int | None = None
    user: str | int | None = None
    ingress: Ingress | None = None
    gateway: Gateway | None = None
    storage: str | None = None
    host: str | None = None
    builder: str | None = None
    ca_bundle: str | None = None
    index_url: str | None = None

    @property
    def kept_for(self) -> float:
        """Return for how many seconds a failed pod is kept."""
        return read_duration(self.keep_failed) if self.keep_failed is not None else 0.0


def read_settings(pool: Pool) -> KubernetesSettings:
    """Read the settings of a pool. Raises `MlstackError` that names every unknown key, or else every wrong value."""
    known = [field.encode_name for field in msgspec.structs.fields(KubernetesSettings)]
    unknown = [name for name in pool.settings if name not in known]
    if unknown:
        raise MlstackError(*(_unknown(name, known, pool.address) for name in unknown))
    try:
        found = decoding.convert(pool.settings, KubernetesSettings)
    except msgspec.ValidationError as error:
        raise MlstackError(_wrong(*_plainly(str(error)), pool.address)) from error
    if wrong := [_wrong(str(each), each.hint, pool.address) for each in wrong_settings(found)]:
        raise MlstackError(*wrong)
    return found


def namespace_of(settings: KubernetesSettings, *, project: str, environment: str) -> str:
    """Return the namespace of a pool: the one that is named, else one for each project and environment."""
    return settings.namespace or dns_name(f"{project}-{environment}")


def _unknown(name: str, known: list[str], address: Address) -> Diagnostic:
    near = did_you_mean(name, known)
    return Diagnostic(
        code="kubernetes-setting-unknown",
        summary="There is no such setting of the target kubernetes",
        detail=f"`{name}` is none of {', '.join(known)}.",
        hint=near or "Remove it.",
        address=address,
    )


def _plainly(error: str) -> tuple[str, str]:
    """Return what msgspec says of a type in the words of the file, and a hint."""
    found = _TYPES.fullmatch(error)
    if found is None:
        return error.replace("$.", ""), ""
    wanted = [_WORDS.get(each, each) for each in found["wanted"].split(" | ") if each != "null"]
    hint = "Put it into quotes." if found["is"] in ("int", "float", "bool") and wanted == ["text"] else ""
    return f"`{found['key']}` is to be {' or '.join(wanted)}, and is {_WORDS.get(found['is'], found['is'])}.", hint


def _wrong(detail: str, hint: str, address: Address) -> Diagnostic:
    return Diagnostic(
        code="kubernetes-setting-wrong",
        summary="A setting of the target kubernetes has a wrong value",
        detail=f"{detail.rstrip('.')}.",
        hint=hint or "Correct it in `targets: {kubernetes: …}` or in the pool's `settings`.",
        address=address,
    )
