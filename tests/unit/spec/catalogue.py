"""The catalogue of bad files: `bad/NAME.yaml` and beside it what is said about it, `bad/NAME.txt`.

`python tests/unit/spec/catalogue.py` writes the expected texts anew; read the difference before committing it.
The first line of a case may say how it is loaded: `# load: environment=prod profile=quick set:depth=8`.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.spec.load import load_spec
from mlstack.spec.spec import Spec

BAD = Path(__file__).parent / "bad"
GOOD = Path(__file__).parent / "good"
_LOAD = "# load: "


def cases(folder: Path = BAD) -> Iterator[Path]:
    return iter(sorted(folder.glob("*.yaml")))


def load_case(path: Path) -> Spec:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    environment = profile = None
    overrides: dict[str, str] = {}
    variables: dict[str, str] = {}
    for word in first.removeprefix(_LOAD).split() if first.startswith(_LOAD) else ():
        kind, _, value = word.partition("=")
        if kind == "environment":
            environment = value
        elif kind == "profile":
            profile = value
        elif kind.startswith("variable:"):
            variables[kind.partition(":")[2]] = value
        else:
            overrides[kind.partition(":")[2]] = value
    return load_spec(path, environment=environment, profile=profile, overrides=overrides, environ=variables)


@cache
def faults_of(path: Path) -> tuple[Diagnostic, ...]:
    try:
        load_case(path)
    except MlstackError as error:
        return error.diagnostics
    return ()


def shown(path: Path) -> str:
    return "\n".join(_block(fault) for fault in faults_of(path))


def _block(fault: Diagnostic) -> str:
    lines = [f"{fault.code}: {fault.summary}"]
    if fault.position is not None:
        lines.append(f"  at {fault.position}")
        source = (fault.source_line or "")[:160]
        end = min(fault.position.end_column or fault.position.column + 1, len(source) + 1)
        width = max(1, end - fault.position.column)
        lines += [f"  | {source}", f"  | {' ' * (fault.position.column - 1)}{'^' * width}"]
    lines.append(f"  {fault.detail}")
    lines += [f"  hint: {line}" for line in fault.hint.splitlines()]
    if fault.command:
        lines.append(f"  $ {fault.command}")
    return "\n".join(line.rstrip() for line in lines) + "\n"


if __name__ == "__main__":
    for case in cases():
        case.with_suffix(".txt").write_text(shown(case), encoding="utf-8")
