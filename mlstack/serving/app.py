"""The routes of the Open Inference Protocol v2 (REST) over one model."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import Executor
from typing import Any, NoReturn

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .faults import RequestError, first_line
from .guard import check_host, check_token, is_open, read_body
from .models import ServedModel
from .settings import ServerSettings
from .tensors import Tensor, decode_tensor

log = logging.getLogger("mlstack.serving")


class ModelService:
    """One model, once it is loaded, and the state of its server.

    `in_flight` counts requests from their first byte to the end of their response; `draining` says that this server
    answers what still comes in on open connections and is about to end. With `token`, only who shows it is answered.
    """

    def __init__(self, settings: ServerSettings, *, pid: int, token: str | None = None) -> None:
        self.settings = settings
        self.token = token
        self.name = settings.model.name
        self.version = settings.model.md5
        self.identity = {
            "mlstack-endpoint": settings.endpoint,
            "mlstack-model-version": self.version,
            "mlstack-pid": str(pid),
            "mlstack-instance": settings.instance,
        }
        self.model: ServedModel | None = None
        self.executor: Executor | None = None
        self.in_flight = 0
        self.draining = False

    def ready(self) -> bool:
        """Whether new requests should come here."""
        return self.model is not None and not self.draining

    # ------------------------------------------------------------------------------------------------ routes

    async def server_metadata(self, _: Request) -> Response:
        """Answer `GET /v2`."""
        return JSONResponse({"name": "mlstack", "version": self.settings.server_version, "extensions": []})

    async def server_live(self, _: Request) -> Response:
        """Answer `GET /v2/health/live`."""
        return JSONResponse({"live": True}, headers=self.identity)

    async def server_ready(self, _: Request) -> Response:
        """Answer `GET /v2/health/ready`, and say who answers: the driver compares it with its record."""
        ready = self.ready()
        return JSONResponse({"ready": ready}, status_code=200 if ready else 503, headers=self.identity)

    async def metrics(self, _: Request) -> Response:
        """Answer `GET /metrics`: by what replicas are added, in Prometheus' text; this request is not counted."""
        lines = "# TYPE mlstack_requests_in_flight gauge\nmlstack_requests_in_flight {}\n"
        return Response(lines.format(self.in_flight - 1), media_type="text/plain; version=0.0.4")

    async def model_ready(self, request: Request) -> Response:
        """Answer `GET /v2/models/{name}/ready`."""
        self._check_path(request)
        ready = self.ready()
        return JSONResponse({"name": self.name, "ready": ready}, status_code=200 if ready else 503)

    async def model_metadata(self, request: Request) -> Response:
        """Answer `GET /v2/models/{name}`."""
        self._check_path(request)
        model, _ = self._loaded()
        return JSONResponse(
            {
                "name": self.name,
                "versions": [self.version],
                "platform": model.platform,
                "inputs": model.inputs(),
                "outputs": model.outputs(),
            }
        )

    async def infer(self, request: Request) -> Response:
        """Answer `POST /v2/models/{name}/infer`."""
        self._check_path(request)
        model, executor = self._loaded()
        if self.in_flight > self.settings.max_waiting:
            raise RequestError("Too many requests are waiting; try again.", status=503)
        body = await self._body(request)
        loop = asyncio.get_running_loop()
        # Decoding takes time too, in proportion to the body: it must not hold up the health routes.
        answer = await loop.run_in_executor(executor, self._answer, model, body)
        return Response(answer, media_type="application/json")

    # ------------------------------------------------------------------------------------------------ parts

    def _answer(self, model: ServedModel, body: bytes) -> bytes:
        tensors, wanted, parameters, request_id = decode_request(body, allow_missing=model.allow_missing)
        try:
            outputs = model.answer(tensors, wanted=wanted, parameters=parameters)
        except RequestError:
            raise
        except (Exception, SystemExit) as error:  # user code may do anything, even ask to exit
            log.exception("the model failed to answer")
            raise RequestError(f"The model failed to answer: {first_line(error)}", status=500) from error
        answer: dict[str, Any] = {"model_name": self.name, "model_version": self.version, "outputs": outputs}
        if request_id is not None:
            answer["id"] = request_id
        return json.dumps(answer, allow_nan=False, ensure_ascii=False).encode("utf-8")

    def _check_path(self, request: Request) -> None:
        name, version = request.path_params["name"], request.path_params.get("version")
        if name != self.name:
            raise RequestError(f'There is no model "{name}" here; there is "{self.name}".', status=404)
        if version is not None and version != self.version:
            raise RequestError(f'"{name}" is served in version {self.version}, not {version}.', status=404)

    def _loaded(self) -> tuple[ServedModel, Executor]:
        if self.model is None or self.executor is None:
            raise RequestError("The model is still being loaded.", status=503)
        return self.model, self.executor

    async def _body(self, request: Request) -> bytes:
        if "inference-header-content-length" in request.headers:
            raise RequestError("Binary tensors are not supported; send the data as JSON (binary_data=False).")
        return await read_body(request.stream().__aiter__(), limit=self.settings.max_body)


def decode_request(
    body: bytes, *, allow_missing: bool
) -> tuple[list[Tensor], list[str], Mapping[str, Any], str | None]:
    """Take an inference request apart: inputs, names of the wanted outputs, parameters, id.

    Raises:
        RequestError: with status 400.
    """
    try:
        raw = json.loads(body, parse_constant=_no_constant)
    except RecursionError:
        raise RequestError("The request's body is nested too deeply.") from None
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, too many digits
        raise RequestError(f"The request's body is not JSON: {error}.") from None
    if not isinstance(raw, dict):
        raise RequestError('The request must be a JSON object with "inputs".')
    inputs = raw.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise RequestError('The request has no "inputs": a list of at least one tensor.')
    tensors = [
        decode_tensor(entry, place=f"inputs[{index}]", allow_missing=allow_missing)
        for index, entry in enumerate(inputs)
    ]
    names = [tensor.name for tensor in tensors]
    if len(set(names)) != len(names):
        raise RequestError(f'Two inputs are called "{next(name for name in names if names.count(name) > 1)}".')
    parameters = raw.get("parameters", {})
    if not isinstance(parameters, dict):
        raise RequestError('"parameters" must be an object.')
    request_id = raw.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise RequestError('"id" must be text.')
    return tensors, _wanted(raw.get("outputs", [])), parameters, request_id


def _wanted(raw: Any) -> list[str]:
    if not isinstance(raw, list):
        raise RequestError('"outputs" must be a list of objects with a name.')
    for entry in raw:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise RequestError('Each of "outputs" must be an object with a name.')
    return [entry["name"] for entry in raw]


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a JSON value")


def build_app(service: ModelService) -> Callable[..., Awaitable[None]]:
    """Return the ASGI application; it counts requests in flight and closes connections while draining."""
    model, version = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
    routes = [
        Route("/v2", service.server_metadata, methods=["GET"]),
        Route("/v2/", service.server_metadata, methods=["GET"]),
        Route("/v2/health/live", service.server_live, methods=["GET"]),
        Route("/v2/health/ready", service.server_ready, methods=["GET"]),
        Route("/metrics", service.metrics, methods=["GET"]),
    ]
    for prefix in (model, version):
        routes += [
            Route(prefix, service.model_metadata, methods=["GET"]),
            Route(f"{prefix}/ready", service.model_ready, methods=["GET"]),
            Route(f"{prefix}/infer", service.infer, methods=["POST"]),
        ]
    handlers: dict[Any, Callable[[Request, Any], Awaitable[Response]]] = {
        RequestError: _on_fault,
        HTTPException: _on_http,
        ClientDisconnect: _on_disconnect,
        Exception: _on_bug,
    }
    inner = Starlette(routes=routes, exception_handlers=handlers)
    inner.router.redirect_slashes = False
    return _counting(inner, service)


def _counting(inner: Callable[..., Awaitable[None]], service: ModelService) -> Callable[..., Awaitable[None]]:
    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        async def send_closing(message: MutableMapping[str, Any]) -> None:
            if service.draining and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        service.in_flight += 1
        try:
            check_host(_host(scope), listening=service.settings.host)
            if service.token is not None and not is_open(scope["path"]):
                check_token(scope["headers"], service.token)
            await inner(scope, receive, send_closing)
        except RequestError as fault:  # before there is a route
            await (await _on_fault(None, fault))(scope, receive, send_closing)
        finally:
            service.in_flight -= 1

    return app


def _host(scope: MutableMapping[str, Any]) -> str | None:
    values = [value for name, value in scope.get("headers", ()) if name == b"host"]
    return values[0].decode("latin-1") if values else None


async def _on_fault(_: Request | None, fault: RequestError) -> Response:
    # Of a request that came too slowly the rest is not waited for.
    headers = {408: {"connection": "close"}, 401: {"www-authenticate": 'Bearer realm="mlstack"'}}.get(fault.status)
    return JSONResponse({"error": fault.sentence}, status_code=fault.status, headers=headers)


async def _on_http(request: Request, error: HTTPException) -> Response:
    sentences = {
        404: f"There is nothing at {request.url.path}.",
        405: f"{request.url.path} does not answer to {request.method}.",
    }
    return JSONResponse(
        {"error": sentences.get(error.status_code, str(error.detail))},
        status_code=error.status_code,
        headers=error.headers,
    )


async def _on_disconnect(_: Request, __: ClientDisconnect) -> Response:
    return JSONResponse({"error": "The request was not sent to its end."}, status_code=400)


async def _on_bug(_: Request, error: Exception) -> Response:
    log.error("a fault of the server", exc_info=error)
    return JSONResponse({"error": "The server has a fault; its log says more."}, status_code=500)
