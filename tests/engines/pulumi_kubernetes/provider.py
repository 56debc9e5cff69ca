"""What the plugin does for each call of the engine: Check, Diff, Create, Read, Update, Delete."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from tests.engines.pulumi_kubernetes import apply, names, waiting
from tests.engines.pulumi_kubernetes.cluster import ApiError, Cluster, NoMatchError, UnreachableError
from tests.engines.pulumi_kubernetes.kinds import is_builtin, namespaced
from tests.engines.pulumi_kubernetes.normalize import normalized
from tests.engines.pulumi_kubernetes.objects import Differences, cut_to_shape, merge_patch
from tests.engines.pulumi_kubernetes.readiness import READ_TOO, look_at
from tests.engines.pulumi_kubernetes.replacing import forcing_paths
from tests.engines.pulumi_kubernetes.settings import Settings
from tests.engines.pulumi_kubernetes.values import UNKNOWN, Object, has_unknown, keep_secrets, plain
from tests.engines.pulumi_kubernetes.waiting import NotReadyError, Wait

INPUTS, VERSION, MANAGER = "__inputs", "__initialApiVersion", "__fieldManager"


class RefusedError(Exception):
    """An error of the operation; nothing was made or changed by it."""


class PartialError(Exception):
    """The object is there, and not what it should be."""

    def __init__(self, message: str, identifier: str, state: Object, inputs: Object | None, reasons: list[str]) -> None:
        super().__init__(message)
        self.identifier = identifier
        self.state = state
        self.inputs = inputs
        self.reasons = [message, *reasons]


class Provider:
    """One configured provider; its methods are called by many threads at once."""

    def __init__(self, settings: Settings, log: Callable[[str, str], None]) -> None:
        self.settings = settings
        self.cancelled = threading.Event()
        self._log = log
        """Warns of something about a URN."""

    # ---------------------------------------------------------------------------------------------------- Check

    def check(self, urn: str, old: Object, new: Object, *, seed: bytes, proposed: str | None) -> Object:
        """Return the inputs as they are recorded: with a name, a namespace, and in their canonical form.

        Raises:
            RefusedError: they cannot be applied.
        """
        if self.settings.unreachable and self.settings.skip_update_unreachable:
            self._log(urn, "Cluster is unreachable but skipUpdateUnreachable flag is set to true, skipping...")
            return old
        inputs, before = normalized(plain(new)), plain(old)
        if before:
            if not names.is_named(inputs) and names.is_autonamed(before):
                names.set_name(inputs, before["metadata"]["name"])
        elif not names.is_named(inputs) and not names.meta_value(inputs, "generateName"):
            if proposed == "":
                raise RefusedError("autonaming is disabled, resource requires the .metadata.name field to be set")
            names.set_name(inputs, proposed or f"{names.name_in(urn)}-{names.suffix(seed)}")
        if not names.is_named(inputs) and self.settings.server_side_apply:
            raise RefusedError("the `.metadata.generateName` field is not supported in Server-Side Apply mode")
        meta = inputs.get("metadata")
        if self.settings.namespace and isinstance(meta, dict) and meta.get("namespace") in (None, "", UNKNOWN):
            version, kind = names.type_of(urn)
            if namespaced(self._cluster_or_none, version, kind):
                meta["namespace"] = self.settings.namespace
        keep_secrets(inputs, new)
        return inputs

    # ----------------------------------------------------------------------------------------------------- Diff

    def diff(self, state: Object, new: Object) -> tuple[dict[str, tuple[str, bool]], bool]:
        """The differences, and whether the old object must go before the new one can come."""
        old_inputs, live = _from_state(state)
        old_inputs, inputs = normalized(old_inputs), normalized(plain(new))
        pruned = cut_to_shape(live, old_inputs)
        meta, old_meta = inputs.setdefault("metadata", {}), pruned.setdefault("metadata", {})
        in_namespace = namespaced(self._cluster_or_none, inputs["apiVersion"], inputs["kind"])
        for each in (meta, old_meta):
            if not isinstance(each, dict):
                continue
            if in_namespace:
                each["namespace"] = each.get("namespace") or "default"
            else:
                each.pop("namespace", None)
        pruned.setdefault("apiVersion", inputs["apiVersion"])
        pruned.setdefault("kind", inputs["kind"])
        if names.meta_value(inputs, "name"):
            old_meta["name"] = live["metadata"]["name"]
        forcing = forcing_paths(
            inputs,
            mutable_config_maps=self.settings.mutable_config_maps,
            mutable_secrets=self.settings.mutable_secrets,
        )
        differences = Differences(forcing)
        differences.of_map((), merge_patch(pruned, inputs), pruned, inputs)
        replaces = any(kind.endswith("_REPLACE") for kind, _ in differences.found.values())
        same_place = (
            names.is_named(inputs)
            and not names.is_autonamed(inputs)
            and names.meta_value(inputs, "name") == live["metadata"]["name"]
            and (names.meta_value(inputs, "namespace") or "") == live["metadata"].get("namespace", "")
        )
        return differences.found, replaces and same_place

    # --------------------------------------------------------------------------------------------------- Create

    def create(self, urn: str, new: Object, *, preview: bool, timeout: float) -> tuple[str, Object]:
        """Make an object and wait for it; return its id and state.

        Raises:
            RefusedError: it was not made.
            PartialError: it was made, and is not ready.
        """
        if self.settings.unreachable and not preview:
            raise RefusedError(f"configured Kubernetes cluster is unreachable: {self.settings.unreachable}")
        inputs = plain(new)
        if preview and not (self.settings.server_side_apply and self._can_be_tried(inputs)):
            return "", new
        manager = self._manager({}, inputs)
        try:
            made = apply.create(self, inputs, manager=manager, preview=preview)
        except ApiError as error:
            known = error.status in (HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT) or apply.no_namespace(error)
            if preview and known:
                return "", new
            raise RefusedError(_not_created(urn, error)) from None
        except NoMatchError as error:
            raise RefusedError(
                f'creation of resource "{urn}" with kind {inputs["apiVersion"]}/{inputs["kind"]} failed because the '
                "Kubernetes API server reported that the apiVersion for this resource does not exist. "
                f"Verify that any required CRDs have been created: {error}"
            ) from None
        except UnreachableError as error:
            raise RefusedError(_not_created(urn, error)) from None
        if preview:
            made.pop("status", None)
            return "", _state(inputs, made, new, inputs["apiVersion"], manager)
        identifier = names.identifier(made)
        try:
            made = self._await(inputs, made, None, timeout)
        except NotReadyError as error:
            message = (
                f'resource "{urn}" was successfully created, but the Kubernetes API server reported that it failed '
                f"to fully initialize or become live: {error}"
            )
            state = _state(inputs, error.live, new, inputs["apiVersion"], manager)
            raise PartialError(message, identifier, state, None, error.reasons) from None
        if inputs["kind"] == "CustomResourceDefinition":
            self.cluster.forget_kinds()
        return identifier, _state(inputs, made, new, inputs["apiVersion"], manager)

    def _await(self, inputs: Object, live: Object, before: Object | None, timeout: float) -> Object:
        look = look_at(live)
        if look is None or waiting.skips_await(inputs):
            return live
        wait = Wait(self.cluster, self.cancelled, live, before, waiting.timeout_of(inputs, timeout))
        return wait.until_ready(look)

    # ----------------------------------------------------------------------------------------------------- Read

    def read(self, urn: str, given: str, state: Object, old: Object) -> tuple[str, Object, Object]:
        """What is live: id, state and inputs; an empty id if it is gone.

        Raises:
            RefusedError: it could not be asked for, which says nothing about whether it is there.
            PartialError: it is there, and not ready.
        """
        if unreachable := self.settings.unreachable:
            self._log(urn, f"configured Kubernetes cluster is unreachable: {unreachable}")
            if self.settings.delete_unreachable:
                return "", {}, {}
            if self.settings.skip_update_unreachable:
                return given, state, old
            raise RefusedError(
                "failed to read resource state due to unreachable cluster. If the cluster was deleted, you can remove "
                "this resource from Pulumi state by rerunning the operation with the PULUMI_K8S_DELETE_UNREACHABLE "
                'environment variable set to "true"'
            )
        namespace, name = names.from_identifier(given)
        old_inputs, first_time = normalized(plain(old)), False
        _, before = _from_state(state)
        if not old_inputs.get("kind"):
            first_time = not before.get("kind")
            version, kind = names.type_of(urn) if first_time else (before["apiVersion"], before["kind"])
            meta = {"name": name, **({"namespace": namespace} if namespace else {}), **old_inputs.get("metadata", {})}
            old_inputs = {**old_inputs, "apiVersion": version, "kind": kind, "metadata": meta}
        initial = state.get(VERSION) or old_inputs["apiVersion"]
        manager = self._manager(state, old_inputs)
        try:
            live = self.cluster.request("GET", self.cluster.path_of(old_inputs, name))
        except NoMatchError:
            return "", {}, {}
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return "", {}, {}
            raise RefusedError(str(error)) from None
        except UnreachableError as error:
            raise RefusedError(str(error)) from None
        inputs = cut_to_shape(live, old_inputs)
        if first_time:
            inputs = _as_imported(inputs, live)
        read_state = _state(inputs, live, old, initial, manager)
        keep_secrets(inputs, old)
        if not first_time and (complaints := self._complaints(old_inputs, live)) is not None:
            message = f"Resource '{name}' was created but failed to initialize"
            raise PartialError(message, given, read_state, inputs, complaints)
        return given, read_state, inputs

    def _complaints(self, inputs: Object, live: Object) -> list[str] | None:
        """Why an object that is read is not ready; None if it is."""
        look = look_at(live)
        if look is None or (live["apiVersion"], live["kind"]) not in READ_TOO or waiting.skips_await(inputs):
            return None
        verdict = look(Wait(self.cluster, self.cancelled, live, None, 0, settled=True), live)
        return None if verdict.ready else verdict.reasons

    # --------------------------------------------------------------------------------------------------- Update

    def update(
        self, urn: str, state: Object, new: Object, *, preview: bool, ignored: list[str], timeout: float
    ) -> Object:
        """Change an object and wait for it; return its state.

        Raises:
            RefusedError: it could not be changed, nor be read.
            PartialError: it was not changed as asked, or is not ready; the state says what is live.
        """
        if self.settings.unreachable and not preview:
            raise RefusedError(f"configured Kubernetes cluster is unreachable: {self.settings.unreachable}")
        inputs = normalized(plain(new))
        if preview and not self._can_be_tried(inputs):
            return new
        old_inputs, old_live = _from_state(state)
        initial = str(state.get(VERSION) or old_inputs.get("apiVersion") or inputs["apiVersion"])
        manager = self._manager(state, inputs)
        name = old_live["metadata"]["name"]
        try:
            before = self.cluster.request("GET", self.cluster.path_of(inputs, name))
            live = apply.update(self, inputs, before, manager=manager, preview=preview, ignored=ignored)
            if not preview:
                live = self._await(inputs, live, before, timeout)
        except NoMatchError as error:
            raise RefusedError(
                f'update of resource "{urn}" failed because the Kubernetes API server reported that the apiVersion '
                f"for this resource does not exist. Verify that any required CRDs have been created: {error}"
            ) from None
        except (ApiError, UnreachableError, NotReadyError) as error:
            if preview and isinstance(error, ApiError) and error.status == HTTPStatus.FORBIDDEN:
                return new
            raise self._failed_update(urn, error, old_live, (inputs, new, initial, manager)) from None
        if not preview and manager != self._manager(state, old_inputs):
            apply.relinquish(self.cluster, live, self._manager(state, old_inputs))
        return _state(inputs, live, new, initial, manager)

    def _failed_update(self, urn: str, error: Exception, old: Object, parts: tuple[Any, ...]) -> Exception:
        inputs, new, initial, manager = parts
        try:
            live = self.cluster.request("GET", self.cluster.path_of(old, old["metadata"]["name"]))
        except (ApiError, UnreachableError) as second:
            return RefusedError(f'update of resource "{urn}" failed: {error}\nunable to get cluster state: {second}')
        name = names.identifier(live)
        message = f'the Kubernetes API server reported that "{name}" failed to fully initialize or become live: {error}'
        reasons = error.reasons if isinstance(error, NotReadyError) else []
        return PartialError(message, name, _state(inputs, live, new, initial, manager), None, reasons)

    # --------------------------------------------------------------------------------------------------- Delete

    def delete(self, urn: str, given: str, state: Object, *, timeout: float) -> None:
        """Delete an object and wait until it is gone; one that is gone already is fine.

        Raises:
            RefusedError: it is still there.
            PartialError: it is being deleted, and was not gone in time.
        """
        if unreachable := self.settings.unreachable:
            self._log(urn, f"configured Kubernetes cluster is unreachable: {unreachable}")
            if self.settings.delete_unreachable:
                return
            raise RefusedError(
                "configured Kubernetes cluster is unreachable. If the cluster was deleted, you can remove this "
                "resource from Pulumi state by rerunning the operation with the PULUMI_K8S_DELETE_UNREACHABLE "
                'environment variable set to "true"'
            )
        inputs, live = _from_state(state)
        try:
            apply.delete(self, inputs, live, names.from_identifier(given)[1], timeout=timeout)
        except NoMatchError:
            return
        except (ApiError, UnreachableError) as error:
            raise RefusedError(str(error)) from None
        except NotReadyError as error:
            initial, manager = state.get(VERSION) or inputs["apiVersion"], self._manager(state, inputs)
            left = _state(live, error.live, state, initial, manager)
            raise PartialError(str(error), names.identifier(error.live), left, None, []) from None

    # -------------------------------------------------------------------------------------------------- the rest

    @property
    def cluster(self) -> Cluster:
        """The API server; only where it is known to be reachable."""
        if self.settings.cluster is None:
            raise RefusedError(f"configured Kubernetes cluster is unreachable: {self.settings.unreachable}")
        return self.settings.cluster

    @property
    def _cluster_or_none(self) -> Cluster | None:
        return None if self.settings.unreachable else self.settings.cluster

    def _can_be_tried(self, inputs: Object) -> bool:
        """Whether a preview can ask the API server what would become of these inputs."""
        if has_unknown(inputs) or self.settings.unreachable:
            return False
        try:
            self.cluster.kind(inputs["apiVersion"], inputs["kind"])
        except (NoMatchError, ApiError, UnreachableError):
            return False
        return True

    def _manager(self, state: Object, inputs: Object) -> str:
        if not self.settings.server_side_apply:
            return apply.CLIENT_SIDE
        own = names.annotation(inputs, "pulumi.com/patchFieldManager")
        return own or state.get(MANAGER) or f"{apply.CLIENT_SIDE}-{names.suffix()}"


def _not_created(urn: str, error: Exception) -> str:
    text = f'resource "{urn}" was not successfully created by the Kubernetes API server: {error}'
    if isinstance(error, ApiError) and error.reason == "AlreadyExists":
        text += "\n\nThe resource already exists in the cluster."
    return text


def _state(inputs: Object, live: Object, secrets: Object, version: str, manager: str) -> Object:
    """What Pulumi records of a resource: what is live, and beside it the inputs that made it."""
    state, recorded = copy.deepcopy(live), copy.deepcopy(inputs)
    keep_secrets(state, secrets)
    keep_secrets(recorded, secrets)
    return {**state, INPUTS: recorded, VERSION: version, MANAGER: manager}


def _from_state(state: Object) -> tuple[Object, Object]:
    """Inputs and live object of a recorded resource, secrets opened."""
    live = plain(state)
    return live.pop(INPUTS, {}), live


SERVERS_OWN = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "uid")


def _as_imported(inputs: Object, live: Object) -> Object:
    """The inputs of an object that Pulumi sees for the first time: all of it but what the server wrote."""
    if is_builtin(live["apiVersion"]):
        inputs = {**inputs, **{key: value for key, value in copy.deepcopy(live).items() if key != "status"}}
    meta = {key: value for key, value in inputs["metadata"].items() if key not in SERVERS_OWN}
    if notes := meta.get("annotations"):
        own = ("deployment.kubernetes.io/revision", "kubectl.kubernetes.io/last-applied-configuration")
        meta["annotations"] = {key: value for key, value in notes.items() if key not in own}
    return {**inputs, "metadata": meta}


__all__ = ["UNKNOWN", "PartialError", "Provider", "RefusedError"]
