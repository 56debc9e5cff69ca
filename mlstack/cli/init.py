"""`mlstack init`: make a folder ready. What is there already is left as it is, so it can be repeated."""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Annotated

import typer

from mlstack.cli.console import report, say, say_json
from mlstack.cli.settings import Settings, settings_of
from mlstack.cli.write_file import write_text
from mlstack.diagnostics import Diagnostic, ExitCode, MlstackError
from mlstack.render.diagnostics_json import diagnostic_object
from mlstack.spec.load import FILE_NAME

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_NAME = 63

_STARTING_FILE = """\
# What this ML system consists of. `mlstack plan` shows what would change, `mlstack apply` makes it so.
version: 1
project: {project}

stages:
  hello:                                    # a command with inputs and outputs; it runs again when they change
    cmd: python -c "open('out/hello.txt', 'w').write('hello\\n')"
    outs: [out/hello.txt]

# A little more of what can be said here (`mlstack schema` has all of it):
#
# python: {{version: "3.11", lock: uv.lock}}   # the environment of stages and endpoints, made once and shared
# params: {{depth: 6, seed: 42}}
#
# datasets:
#   wine: {{path: data/wine.csv}}
#
# stages:
#   train:
#     cmd: python src/train.py
#     deps: [datasets.wine, src/train.py]   # what train.py imports from here is found and added
#     params: [depth, seed]
#     outs: {{model: models/wine.joblib}}
#     metrics: [metrics/train.json]
#
# models:
#   wine: {{from: stages.train.outs.model, framework: sklearn, gate: {{stages.train.metrics.rmse: {{max: 0.7}}}}}}
#
# endpoints:
#   quality: {{model: models.wine}}
"""

FromDvc = Annotated[bool, typer.Option("--from-dvc", help="Make mlstack.yaml from the dvc.yaml and .dvc files here.")]
ProjectName = Annotated[
    str | None, typer.Option("--project", metavar="NAME", help="Name of the project.  [default: the folder's]")
]


def init(context: typer.Context, from_dvc: FromDvc = False, project: ProjectName = None) -> int:
    """Make a folder ready: a Git repository, a DVC project, a first mlstack.yaml.

    What is there already is left as it is. With --from-dvc, the stages and data of an existing DVC project are taken
    in; results that are up to date stay so.
    """
    from mlstack.drivers.dvc.bootstrap import init_repository
    from mlstack.gitops.merge_driver import install_merge_driver

    settings = settings_of(context)
    root = settings.directory
    if project is not None and project != project_name(project):
        raise typer.BadParameter("a letter, then letters, digits, _ and -, at most 63", param_hint="--project")
    name = project if project is not None else project_name(root.resolve().name)
    if from_dvc and (root / FILE_NAME).exists():
        raise MlstackError(_already_there(root))
    with redirect_stdout(StringIO()):  # DVC greets on standard output, which is for results
        done = init_repository(root)
    done += install_merge_driver(root)
    warnings: tuple[Diagnostic, ...] = ()
    if from_dvc:
        warnings = _take_in(root, name, done)
    elif not (root / FILE_NAME).exists():
        if (root / "dvc.yaml").exists():
            _report(settings, root, done, warnings)
            raise MlstackError(_dvc_here(root))
        write_text(root / FILE_NAME, _STARTING_FILE.format(project=name))
        done.append(f"Wrote a first {FILE_NAME} with one stage.")
    _report(settings, root, done, warnings)
    return ExitCode.OK


def project_name(text: str) -> str:
    """Return the nearest name that a project may have."""
    name = _NOT_IN_NAMES.sub("-", text).strip("-")[:_LONGEST_NAME]
    return name if name[:1].isalpha() or name[:1] == "_" else f"project-{name}"[:_LONGEST_NAME].rstrip("-")


def _take_in(root: Path, name: str, done: list[str]) -> tuple[Diagnostic, ...]:
    from mlstack.drivers.dvc.adopt import adopt, take_over

    adoption = adopt(root, project=name)
    write_text(root / FILE_NAME, adoption.text)
    done.append(f"Wrote {FILE_NAME} from DVC's files.")
    done.extend(take_over(root, adoption))
    return adoption.left_out


def _report(settings: Settings, root: Path, done: list[str], warnings: tuple[Diagnostic, ...]) -> None:
    if settings.json:
        say_json(
            {
                "format_version": "1.0",
                "directory": str(root),
                "done": done,
                "diagnostics": [diagnostic_object(warning) for warning in warnings],
            }
        )
        return
    report(settings, warnings)
    mark = settings.out.paint(settings.out.symbol("✓"), "add")
    say("\n".join(f"{mark} {sentence}" for sentence in done) or "Everything is there already; nothing was changed.")
    if (root / FILE_NAME).exists():
        say(f"\nNext:\n\n    {settings.out.paint('mlstack plan', 'strong')}")


def _already_there(root: Path) -> Diagnostic:
    return Diagnostic(
        code="file-exists",
        summary=f"There is a {FILE_NAME} already",
        detail=f"{root / FILE_NAME} is left as it is; --from-dvc would have to overwrite it.",
        hint="Move it away first, if it is to be made from DVC's files.",
    )


def _dvc_here(root: Path) -> Diagnostic:
    return Diagnostic(
        code="dvc-yaml-found",
        summary="There is a dvc.yaml here",
        detail=f"{root / 'dvc.yaml'} says already what there is, so no first {FILE_NAME} was written beside it.",
        hint="Take it in (its results stay valid):",
        command="mlstack init --from-dvc",
    )
