"""The client's side of an endpoint: asking it for predictions, and telling how it is."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import msgspec

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.drivers.base import Absent, NotChecked, Observation, Present, Send, Unreadable
from mlstack.drivers.local.endpoint_server import log_tail
from mlstack.spec.address import Address, short_name
from mlstack.state.state import Record

TIMEOUT = 60.0


# ---------------------------------------------------------------------------------------------------- predicting


def load_data(data: str, *, read_input: Callable[[], str]) -> Any:
    """Return what `--data` says: JSON text, `@FILE` (JSON, or CSV with a header), or `-` for `read_input()`.

    Columns of a CSV file become numbers where all their values are; empty cells are missing values (None). Raises
    `MlstackError` for a file that cannot be read, or text that is neither.
    """
    if data == "-":
        return _parse(read_input(), place="the standard input")
    if not data.startswith("@"):
        return _parse(data, place="--data")
    path = Path(data[1:])
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise MlstackError(_bad_data(f"{path}: {reason}.")) from error
    return _read_csv(text, place=str(path)) if path.suffix.lower() == ".csv" else _parse(text, place=str(path))


def predict(
    url: str,
    model: str,
    payload: Any,
    *,
    timeout: float = TIMEOUT,
    address: Address | None = None,
    send: Send | None = None,
    token: str | None = None,
) -> dict[str, Any]:
    """Ask the server at `url` for a prediction and return its answer (a v2 inference response).

    `send` is for one that is not asked at its URL from here; otherwise `token` is shown to it, if there is one.

    `payload` is a whole v2 request (an object with `inputs`), or one row or a list of rows, each a list or an object:
    these are turned into a request with the help of the model's metadata. Raises `MlstackError` with the server's
    sentence, or when it cannot be reached; `address` is the endpoint that they are about.
    """
    path = f"/v2/models/{quote(model, safe='')}"
    send = send or partial(_send, url, timeout, token)
    request = payload
    if not (isinstance(payload, dict) and "inputs" in payload):
        request = build_request(payload, _ask(url, send, "GET", path, None, address=address))
    return _ask(url, send, "POST", f"{path}/infer", json.dumps(request).encode(), address=address)


def build_request(payload: Any, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Turn rows into a v2 inference request for the model that `metadata` describes.

    Raises `MlstackError` when the rows are not of one kind.
    """
    rows = [payload] if isinstance(payload, dict) else payload
    if not isinstance(rows, list) or not rows:
        raise MlstackError(_bad_data("Rows are a JSON list, with at least one row."))
    described = [entry for entry in metadata.get("inputs", ()) if isinstance(entry, dict)]
    names = [str(entry["name"]) for entry in described]
    is_columns = len(described) > 1 or (len(described) == 1 and len(described[0].get("shape", ())) == 1)
    if all(isinstance(row, dict) for row in rows):
        if any(row.keys() != rows[0].keys() for row in rows):
            raise MlstackError(_bad_data("The rows do not all have the same columns."))
        # A table often holds more than the model's features (the label); what it does not name is left out.
        kept = names if names and set(names) <= rows[0].keys() else [str(name) for name in rows[0]]
        columns = {name: [row[name] for row in rows] for name in kept}
        if is_columns or not described:
            return {"inputs": [_tensor(name, values, [len(rows)]) for name, values in columns.items()]}
        rows = [list(row.values()) for row in rows]
    if any(isinstance(row, dict) for row in rows):
        raise MlstackError(_bad_data("Some rows are objects and some are not."))
    if not any(isinstance(row, list) for row in rows):
        if is_columns and len(described) == 1:  # one column: a list of values is a list of rows
            return {"inputs": [_tensor(names[0], rows, [len(rows)])]}
        rows = [rows]
    width = len(rows[0]) if isinstance(rows[0], list) else -1
    if any(not isinstance(row, list) or len(row) != width for row in rows):
        raise MlstackError(_bad_data("The rows do not all have the same number of values."))
    if is_columns and width == len(names):
        return {
            "inputs": [_tensor(name, [row[index] for row in rows], [len(rows)]) for index, name in enumerate(names)]
        }
    flat = [value for row in rows for value in row]
    return {"inputs": [_tensor(names[0] if len(names) == 1 else "input", flat, [len(rows), width])]}


def _tensor(name: str, values: list[Any], shape: list[int]) -> dict[str, Any]:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool} and kinds:
        datatype = "BOOL"
    elif kinds == {int} and None not in values:
        datatype = "INT64"
    elif kinds <= {int, float}:
        datatype = "FP64"
    elif kinds == {str}:
        datatype = "BYTES"
    else:
        raise MlstackError(
            _bad_data(f'"{name}" holds values of different kinds; numbers and text need columns of their own.')
        )
    return {"name": name, "datatype": datatype, "shape": shape, "data": values}


def _send(url: str, timeout: float, token: str | None, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    place = urlsplit(url)
    kind = HTTPSConnection if place.scheme == "https" else HTTPConnection
    connection = kind(place.hostname or "127.0.0.1", place.port, timeout=timeout)
    try:
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, HTTPException) as error:
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        raise MlstackError(_unreachable(f"{url}: {reason}.")) from error
    finally:
        connection.close()


def _ask(
    url: str, send: Send, method: str, path: str, body: bytes | None, *, address: Address | None = None
) -> dict[str, Any]:
    status, text = send(method, path, body)
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if status == 200 and isinstance(answer, dict):
        return answer
    if status < 500 and not isinstance(answer, dict):
        raise MlstackError(
            _unreachable(f"Something else is at {url}: it answers without a word of JSON (HTTP {status}).")
        )
    sentence = answer.get("error") if isinstance(answer, dict) else None
    raise MlstackError(_no_answer(f"{sentence or 'It gave no reason.'} (HTTP {status})", status, address))


def _unreachable(detail: str) -> Diagnostic:
    return Diagnostic(
        code="endpoint-unreachable",
        summary="The endpoint does not answer",
        detail=detail,
        hint="See whether it is up; apply brings it back.",
        command="mlstack status",
    )


def _no_answer(detail: str, status: int, address: Address | None) -> Diagnostic:
    if status < 500:
        hint = "What runs has the token that it was applied with: is this the same? Apply to change it."
        return Diagnostic(
            code="prediction-refused",
            summary="The endpoint refused the request",
            detail=detail,
            hint=hint if status == 401 else "",
        )
    return Diagnostic(
        code="prediction-failed",
        summary="The endpoint could not answer",
        detail=detail,
        hint="Its log says where it came from.",
        command=f"mlstack logs {address}" if address is not None else "",
        address=address,
    )


def _parse(text: str, *, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        hint = " (a CSV file has to end in .csv)" if place not in {"--data", "the standard input"} else ""
        raise MlstackError(_bad_data(f"{place} is not JSON: {error}{hint}.")) from error


def _read_csv(text: str, *, place: str) -> list[dict[str, Any]]:
    lines = [row for row in csv.reader(io.StringIO(text)) if row]
    if len(lines) < 2:
        raise MlstackError(_bad_data(f"{place} needs a header and at least one row."))
    header = [name.strip() for name in lines[0]]
    for number, row in enumerate(lines[1:], start=2):
        if len(row) != len(header):
            raise MlstackError(_bad_data(f"{place}: row {number} has {len(row)} cells, the header {len(header)}."))
    columns = {name: _convert([row[index] for row in lines[1:]]) for index, name in enumerate(header)}
    if len(columns) != len(header):
        raise MlstackError(_bad_data(f"{place} has two columns of the same name."))
    return [{name: values[index] for name, values in columns.items()} for index in range(len(lines) - 1)]


def _convert(cells: Sequence[str]) -> list[Any]:
    for kind in (int, float):
        try:
            return [kind(cell) if cell.strip() else None for cell in cells]
        except ValueError:
            continue
    return list(cells)


def _bad_data(detail: str) -> Diagnostic:
    return Diagnostic(
        code="bad-data",
        summary="The data cannot be sent to the endpoint",
        detail=detail,
        hint='Give rows as JSON (`--data "[[5.1, 3.5]]"`), a whole v2 request, or a CSV file with a header '
        "(`--data @rows.csv`).",
    )


# ---------------------------------------------------------------------------------------------------- status


class EndpointStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How an endpoint is. `detail` says why it is not up; `log` are the last lines of its log."""

    address: Address
    state: Literal["up", "down", "not-ready", "not-checked"]
    url: str
    model: str
    version: str
    since: str
    detail: str = ""
    log: tuple[str, ...] = ()


def endpoint_status(record: Record, observation: Observation) -> EndpointStatus:
    """Put together what `mlstack status` shows of a recorded endpoint, given what the driver read."""
    known = record.attributes
    variants = known.get("variants")
    variant: dict[str, Any] = next(iter(variants.values()), {}) if isinstance(variants, dict) else {}
    state: Literal["up", "down", "not-ready", "not-checked"] = "up"
    detail = ""
    match observation:
        case Absent(reason=detail):
            state = "down"
        case NotChecked(reason=detail):
            state = "not-checked"
        case Unreadable(diagnostic=diagnostic):
            state, detail = "not-checked", diagnostic.detail or diagnostic.summary
        case Present(attributes=attributes) if attributes.get("ready") is False:
            state, detail = "not-ready", str(attributes.get("reason", ""))
    folder = Path(str(known.get("folder", "")))
    return EndpointStatus(
        address=record.address,
        state=state,
        url=str(known.get("url", "")),
        model=short_name(variant["model"]) if variant.get("model") else "",
        version=str(variant.get("version", "")),
        since=str(known.get("started", "")),
        detail=detail,
        log=() if state == "not-checked" else log_tail(folder, lines=5),
    )
