"""Opening an object store: endpoint, region and credentials as the person's other programs find them."""

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from mlstack.diagnostics import MlstackError
from mlstack.state import object_problems as problems

_CLIENT = {"timeout": "20s", "connect_timeout": "5s"}  # of one try
_FRESH = timedelta(minutes=15)  # after which credentials that may change are asked for again


def open_object_store(url: str) -> Any:
    """Return obstore's store for `url`; nothing is asked yet. Raises `MlstackError` for what cannot be opened.

    Credentials come from variables (`AWS_*`, `GOOGLE_*`, `AZURE_*`), files and the machine's own role, in each cloud's
    usual order. Requests are tried once: `ObjectBackend` knows which may be tried again.
    """
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    settings: dict[str, Any] = {"client_options": dict(_CLIENT), "retry_config": {"max_retries": 0}}
    if url.startswith("s3://"):
        settings |= _aws(url, os.environ, settings["client_options"])
    try:
        return from_url(url, **settings)
    except (BaseError, ValueError) as error:
        raise MlstackError(problems.not_usable(url, problems.reason_of(error))) from error


def _aws(url: str, environment: Mapping[str, str], client: dict[str, Any]) -> dict[str, Any]:
    config = {}
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    if endpoint:
        config["endpoint"] = endpoint
        client["allow_http"] = endpoint.startswith("http://")
    if "AWS_ACCESS_KEY_ID" in environment:
        return {"config": config}
    try:
        from botocore.session import Session
    except ImportError:  # then obstore looks for them: roles of machines and containers, no profiles
        if profile := environment.get("AWS_PROFILE"):
            raise MlstackError(problems.without_library(url, profile)) from None
        return {"config": config}
    return _from_botocore(url, Session(), config)


def _from_botocore(url: str, session: Any, config: dict[str, str]) -> dict[str, Any]:
    """Let botocore find region and credentials: it knows profiles, single sign-on, roles to assume, the machine's."""
    from botocore.exceptions import BotoCoreError

    try:
        region = session.get_config_variable("region")
        credentials = session.get_credentials()
    except BotoCoreError as error:
        raise MlstackError(problems.refused(url, str(error).rstrip("."), writing=False)) from error
    if region:
        config["region"] = region
    if credentials is None:
        raise MlstackError(problems.refused(url, "there are no AWS credentials", writing=False))
    return {"config": config, "credential_provider": _provider(credentials)}


def _provider(credentials: Any) -> Callable[[], dict[str, Any]]:
    def provide() -> dict[str, Any]:
        now = credentials.get_frozen_credentials()  # asks anew when they are about to end
        return {
            "access_key_id": now.access_key,
            "secret_access_key": now.secret_key,
            "token": now.token,
            "expires_at": datetime.now(UTC) + _FRESH,
        }

    return provide
