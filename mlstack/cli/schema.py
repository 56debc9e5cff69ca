"""`mlstack schema`: the JSON Schema of the file, for editors and other tools."""

import typer

from mlstack.cli import options
from mlstack.cli.console import json_text, note, say
from mlstack.cli.write_file import write_text
from mlstack.diagnostics import ExitCode


def schema(context: typer.Context, out: options.OutFile = None) -> int:  # noqa: ARG001 - the frame hands it in
    """Print the JSON Schema of mlstack.yaml.

    Editors complete and check the file with it: write `# yaml-language-server: $schema=mlstack.schema.json` into its
    first line.
    """
    from mlstack.spec.schema import export_schema

    text = json_text(export_schema()) + "\n"
    if out is None:
        say(text)
    else:
        write_text(out, text)
        note(f"Wrote {out}")
    return ExitCode.OK
