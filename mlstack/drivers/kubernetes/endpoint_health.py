"""How an endpoint on a cluster is: its Deployment, its route and its autoscaler, as the cluster says."""

from typing import TYPE_CHECKING

from mlstack.drivers.base import Absent, Observation, Present
from mlstack.drivers.kubernetes.endpoint_rollout import why_not_ready
from mlstack.drivers.kubernetes.endpoint_routing import read_route
from mlstack.drivers.kubernetes.endpoint_scaling import AUTOSCALER, why_not_scaled
from mlstack.drivers.kubernetes.names import object_name
from mlstack.drivers.stacks import UNCONFIRMED
from mlstack.state.state import Record

if TYPE_CHECKING:
    from mlstack.drivers.kubernetes.client import Kube

_KINDS = {"gateway": "HTTPRoute", "ingress": "Ingress"}


def read_health(client: "Kube", record: Record) -> Observation:
    """Read how a recorded endpoint is. Raises `MlstackError`.

    It is `ready` with its Deployment, unless its route is refused. `reason` also says what keeps it from nothing yet:
    a route that nobody has taken, an autoscaler that does not work. `replicas` is how many are ready.
    """
    known = record.attributes
    name, namespace = object_name(record.address), str(known.get("namespace", ""))
    found = client.get("Deployment", name, namespace)
    if found is None:
        return Absent(reason=f"the Deployment {name} in {namespace} is gone")
    problem = why_not_ready(found)
    is_ready, reasons = not problem, [problem]
    kind = _KINDS.get((known.get("route") or {}).get("kind", ""))
    if kind is not None:
        said = read_route(client, kind, name, namespace, is_new=UNCONFIRMED in known)
        is_ready = is_ready and said.is_taken is not False
        reasons.append(said.text)
    if known.get("autoscale"):
        scaler = client.get(AUTOSCALER, name, namespace)
        reasons.append(why_not_scaled(scaler) if scaler is not None else "its autoscaler is gone")
    ready = int((found.get("status") or {}).get("availableReplicas", 0))
    observed = {"ready": is_ready, "url": known.get("url", ""), "replicas": ready}
    reason = "; ".join(filter(None, reasons))
    return Present(attributes=observed | ({"reason": reason} if reason else {}))
