"""What the objects of a pool are called, and the labels by which they find the pods of the pool."""

from mlstack.drivers.kubernetes.names import PREFIX, dns_name, label_value, labels_of, object_name
from mlstack.drivers.kubernetes.settings import KubernetesSettings
from mlstack.spec.address import Address
from mlstack.spec.spec import Pool, Spec

POOL = f"{PREFIX}pool"
"""Label of a pod: the pool that it runs in. What it may reach and who may reach it depends on it."""
ROLE = f"{PREFIX}role"
"""Label of a pod: `run` or `endpoint`."""
RUN, ENDPOINT = "run", "endpoint"


def service_account_name(pool: Pool, settings: KubernetesSettings) -> str:
    """Return whom the pods of a pool run as."""
    return settings.service_account or dns_name(f"mlstack-run-{object_name(pool.address)}")


def priority_class_name(pool: Pool, settings: KubernetesSettings, spec: Spec) -> str:
    """Return the priority class of a pool: the quota counts its pods by it.

    The priority is in the name, since it cannot be changed in place.
    """
    if settings.priority_class is not None:
        return settings.priority_class
    words = ["mlstack", spec.project, spec.environment, object_name(pool.address)]
    level = [str(settings.priority).replace("-", "m")] if settings.priority else []
    return dns_name("-".join([*words, *level]).lower().replace("_", "-"))


def remote_secret_name(pool: Address) -> str:
    """Return the Secret with which pods of a pool reach the remote."""
    return dns_name(f"mlstack-remote-{object_name(pool)}")


def pool_labels(pool: Address) -> dict[str, str]:
    """Return the label that says which pool a pod runs in."""
    return {POOL: label_value(pool)}


def pod_labels(spec: Spec, address: Address, pool: Address, role: str) -> dict[str, str]:
    """Return the labels of a pod."""
    return labels_of(spec.project, spec.environment, address) | pool_labels(pool) | {ROLE: role}
