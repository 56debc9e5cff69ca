"""`mlstack predict`: ask an endpoint for a prediction."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mlstack.cli import options
from mlstack.cli.addresses import one_address
from mlstack.cli.console import say, say_json
from mlstack.cli.project import open_spec
from mlstack.cli.settings import settings_of
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError
from mlstack.drivers.base import SupportsAccess
from mlstack.drivers.local.endpoint_client import TIMEOUT, load_data
from mlstack.drivers.local.endpoint_client import predict as ask
from mlstack.drivers.local.endpoint_process import machine_identity
from mlstack.drivers.registry import driver_named, seen_from_here
from mlstack.render.human import number
from mlstack.render.table import Column, render_table
from mlstack.spec.address import Address, Kind, kind_of, short_name
from mlstack.spec.spec import TOKEN_VARIABLE, Endpoint, SecretRef
from mlstack.state.environment_folder import backend_for
from mlstack.state.read import open_reader
from mlstack.state.state import Record

Data = Annotated[
    str,
    typer.Option(
        "--data",
        "-d",
        metavar="DATA",
        help="JSON rows, a whole v2 request, @FILE (.json or .csv with a header), or - for standard input.",
    ),
]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="Wait this long for an answer.")]


def predict(
    context: typer.Context,
    address: options.OptionalAddress = None,
    data: Data = "-",
    timeout: Timeout = TIMEOUT,
) -> int:
    """Ask an endpoint for a prediction.

    ADDR can be left out when there is one endpoint. Rows are lists of values or objects by column.
    """
    settings = settings_of(context)
    if data == "-" and sys.stdin.isatty():
        raise typer.BadParameter('give rows, as in --data "[[5.1, 3.5, 1.4, 0.2]]"', param_hint="--data")
    root, spec = open_spec(settings)
    reader = open_reader(
        backend_for(spec.state, root, spec.environment), project=spec.project, environment=spec.environment
    )
    state = seen_from_here(reader.state(), spec, root=root)
    recorded = state.resources if state is not None else {}
    where = _endpoint(address, [*spec.of(Endpoint), *recorded])
    record = recorded.get(where)
    if record is None:
        raise MlstackError(_not_made(where))
    driver = driver_named(record.driver, root=root)
    elsewhere = isinstance(driver, SupportsAccess)
    url, model = _place(record, elsewhere=elsewhere)
    token = token_of(record, root)
    send = driver.sender(record, timeout=timeout, token=token) if isinstance(driver, SupportsAccess) else None
    rows = load_data(data, read_input=sys.stdin.read)
    answer = ask(url, model, rows, timeout=timeout, address=where, send=send, token=token)
    if settings.json:
        say_json(answer)
    else:
        say(_table(answer, settings.out))
    return ExitCode.OK


def _endpoint(word: str | None, known: list[Address]) -> Address:
    endpoints = [address for address in dict.fromkeys(known) if kind_of(address) is Kind.ENDPOINT]
    if word is not None:
        return one_address(word, endpoints)
    if len(endpoints) == 1:
        return endpoints[0]
    raise MlstackError(
        Diagnostic(
            code="which-endpoint",
            summary="Which endpoint is meant?",
            detail=f"This project has {', '.join(endpoints) or 'no endpoints'}.",
            hint="Name one of them." if endpoints else "Declare one under `endpoints:` and apply.",
        )
    )


def _place(record: Record, *, elsewhere: bool) -> tuple[str, str]:
    """Return the URL of an endpoint and the name under which its server knows the model."""
    variants = record.attributes.get("variants")
    first: dict[str, Any] = next(iter(variants.values()), {}) if isinstance(variants, dict) else {}
    if not elsewhere and record.attributes.get("machine") != machine_identity():
        raise MlstackError(_elsewhere(record))
    url, model = record.attributes.get("url"), first.get("model")
    if not isinstance(url, str) or not isinstance(model, str):
        raise MlstackError(_not_made(record.address))
    return url, short_name(Address(model))


def token_of(record: Record, root: Path) -> str | None:
    """Return what the endpoint asks for, found where it was found when it was applied. Raises `MlstackError`."""
    from mlstack.drivers.secrets import resolve_secrets

    uri = (record.attributes.get("secrets") or {}).get(TOKEN_VARIABLE)
    if uri is None:
        return None
    reference = {TOKEN_VARIABLE: SecretRef(uri)}
    values = resolve_secrets(reference, address=record.address, root=root, environment=os.environ)
    return values.reveal()[TOKEN_VARIABLE]


def _not_made(address: Address) -> Diagnostic:
    return Diagnostic(
        code="endpoint-not-made",
        summary="The endpoint was not made yet",
        detail=f"Nothing is recorded about {address} in this environment.",
        command="mlstack apply",
        address=address,
    )


def _elsewhere(record: Record) -> Diagnostic:
    return Diagnostic(
        code="endpoint-elsewhere",
        summary="The endpoint runs on another machine",
        detail=f"{record.address} runs on {record.attributes.get('host')}; from here its address means something else.",
        hint="Run the command on that machine.",
        address=record.address,
    )


def _table(answer: dict[str, Any], style: Any) -> str:
    """Return the outputs as columns, one row a prediction; what has another shape as JSON."""
    outputs = [out for out in answer.get("outputs", ()) if isinstance(out, dict) and isinstance(out.get("data"), list)]
    heads: list[str | Column] = []
    columns: list[list[Any]] = []
    for out in outputs:
        shape, values, name = out.get("shape") or [len(out["data"])], out["data"], str(out.get("name", ""))
        width = 1
        for size in shape[1:]:
            width *= size
        for index in range(width):
            heads.append(Column(name if width == 1 else f"{name}[{index}]", right=True))
            columns.append(values[index::width])
    rows = max((len(column) for column in columns), default=0)
    if not columns or any(len(column) != rows for column in columns):
        from mlstack.cli.console import json_text

        return json_text(answer)
    return render_table(heads, [[_text(column[row]) for column in columns] for row in range(rows)], style=style)


def _text(value: Any) -> str:
    return number(value) if isinstance(value, int | float) else str(value)
