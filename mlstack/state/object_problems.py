"""What an object store answers when it does not do what was asked, in diagnostics."""

import re
from collections.abc import Sequence

from mlstack.diagnostics import Diagnostic

_RIGHTS = "read, write, delete and list objects there (on S3: GetObject, PutObject, DeleteObject, ListBucket)"


def status_of(error: Exception) -> int | None:
    """Return the HTTP status in an error of obstore's, if it tells one."""
    found = re.search(r"status code: (\d{3})", str(error))
    return int(found.group(1)) if found else None


def reason_of(error: Exception) -> str:
    """Return what a store said, short: the code and message in its answer, else the error's first line."""
    text = str(error).strip()
    code = re.search(r"<Code>([^<]{1,80})</Code>", text)
    if code:
        message = re.search(r"<Message>([^<]{1,300})</Message>", text)
        return f"{code.group(1)}: {message.group(1)}" if message else code.group(1)
    first = (text or type(error).__name__).splitlines()[0]
    return first.rpartition(" - ")[2] or first


def explain(error: Exception, where: str, *, place: str, writing: bool) -> Diagnostic | None:
    """Say what stands in the way of a request that no second try will help; None for an answer like "not there"."""
    from obstore.exceptions import (
        AlreadyExistsError,
        NotSupportedError,
        PermissionDeniedError,
        PreconditionError,
        UnauthenticatedError,
    )

    said = str(error)
    if any(word in said for word in ("NoSuchBucket", "ContainerNotFound", "bucket does not exist")):
        return no_such_place(place, error)
    if isinstance(error, FileNotFoundError | AlreadyExistsError | PreconditionError):
        return None
    status = status_of(error)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or status in (401, 403):
        return refused(where, reason_of(error), writing=writing)
    if status == 404:
        return no_such_place(place, error)
    if writing and (status == 501 or isinstance(error, NotSupportedError)):
        return without_conditions(place, ["If-None-Match"])
    return Diagnostic(
        code="state-store-failed",
        summary="The store of the state answers with an error",
        detail=f"{where}: {reason_of(error)}.",
        hint="See that the URL, the region and the endpoint are right (AWS_REGION, AWS_ENDPOINT_URL); "
        "`mlstack doctor` tries the store.",
        command="mlstack doctor",
    )


def refused(where: str, reason: str, *, writing: bool) -> Diagnostic:
    """The credentials do not suffice, or there are none."""
    return Diagnostic(
        code="state-store-refused",
        summary="The store of the state refuses access",
        detail=f"{where} could not be {'written' if writing else 'read'}: {reason}.",
        hint=f"Give credentials that may {_RIGHTS}: variables (AWS_*, GOOGLE_*, AZURE_*), or a profile of the AWS "
        "configuration (needs `mlstack[s3]`).",
    )


def no_such_place(place: str, error: Exception) -> Diagnostic:
    """The bucket does not exist."""
    return Diagnostic(
        code="state-store-missing",
        summary="The store of the state does not exist",
        detail=f"{place}: {reason_of(error)}.",
        hint="Make the bucket first, or correct `state` of this environment: mlstack makes no buckets by itself.",
    )


def unreachable(where: str, reason: str, patience: float) -> Diagnostic:
    """The store did not answer in time."""
    return Diagnostic(
        code="state-store-unreachable",
        summary="The store of the state does not answer",
        detail=f"{where} was tried for {patience:.0f} s: {reason}. What was recorded before is untouched.",
        hint="Run the same command again when it answers: it goes on where this one stopped.",
    )


def without_conditions(place: str, ignored: Sequence[str]) -> Diagnostic:
    """The store writes whatever the condition says, so that two applies could overwrite each other."""
    return Diagnostic(
        code="state-store-without-conditions",
        summary="This store cannot hold a state",
        detail=f"{place} does not honour {' and '.join(ignored)} of a write: two applies at the same time could "
        "overwrite what the other one recorded.",
        hint="Use a store with conditional writes (AWS S3, Google Cloud Storage, Azure Blob Storage, recent MinIO, "
        "Ceph or R2), or a folder that all machines see.",
    )


def not_usable(url: str, reason: str) -> Diagnostic:
    """The URL or the settings are wrong."""
    return Diagnostic(
        code="state-store-not-usable",
        summary="The place for the state cannot be used",
        detail=f"{url}: {reason}.",
        hint="Write it as s3://BUCKET/PATH, gs://BUCKET/PATH or azure://CONTAINER/PATH (with "
        "AZURE_STORAGE_ACCOUNT_NAME set).",
    )


def without_library(url: str, profile: str) -> Diagnostic:
    """A profile of the AWS configuration is asked for and nothing here can read it."""
    return Diagnostic(
        code="state-store-needs-extra",
        summary="AWS profiles need the extra s3",
        detail=f"{url} is to be asked with the AWS profile {profile}, and botocore, which reads profiles, is not "
        "installed.",
        hint="Install it beside mlstack, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY:",
        command="pip install 'mlstack[s3]'",
    )
