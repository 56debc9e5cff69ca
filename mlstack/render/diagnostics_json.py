"""Diagnostics as JSON, with Terraform's names where they fit."""

from collections.abc import Sequence
from typing import Any

from mlstack.diagnostics import Diagnostic, Severity

DIAGNOSTICS_FORMAT = "1.0"


def diagnostic_object(diagnostic: Diagnostic) -> dict[str, Any]:
    """Return one diagnostic as plain values. `range` counts lines and columns from 1."""
    found: dict[str, Any] = {
        "severity": diagnostic.severity.value,
        "code": diagnostic.code,
        "summary": diagnostic.summary,
        "detail": diagnostic.detail,
    }
    if diagnostic.hint:
        found["hint"] = diagnostic.hint
    if diagnostic.command:
        found["command"] = diagnostic.command
    if diagnostic.address is not None:
        found["address"] = diagnostic.address
    position = diagnostic.position
    if position is not None:
        end = position.end_column if position.end_column is not None else position.column + 1
        found["range"] = {
            "filename": position.file,
            "start": {"line": position.line, "column": position.column},
            "end": {"line": position.line, "column": end},
        }
    if diagnostic.source_line is not None:
        found["snippet"] = {"code": diagnostic.source_line.rstrip("\r\n")}
    return found


def diagnostics_document(diagnostics: Sequence[Diagnostic]) -> dict[str, Any]:
    """Return the document that a failed command, or `validate --json`, gives."""
    errors = sum(diagnostic.severity is Severity.ERROR for diagnostic in diagnostics)
    return {
        "format_version": DIAGNOSTICS_FORMAT,
        "valid": errors == 0,
        "error_count": errors,
        "warning_count": len(diagnostics) - errors,
        "diagnostics": [diagnostic_object(diagnostic) for diagnostic in diagnostics],
    }
