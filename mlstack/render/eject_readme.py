"""README.md of `mlstack eject`: what somebody who goes on without mlstack does, step by step."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mlstack.drivers.stacks import Unit
from mlstack.render.eject import PROGRAM, RECORD, secret_names
from mlstack.spec.address import Address


def readme(
    units: Sequence[Unit],
    *,
    project: str,
    environment: str,
    versions: Mapping[str, str],
    protected: Collection[Address],
    pending: Sequence[str],
    has_record: bool,
    remote: str | None,
) -> str:
    """Return the text. `pending` are rows that were not applied when the files were written, as texts for people."""
    parts = [
        _head(units, project=project, environment=environment, has_record=has_record),
        _pending(pending) if pending else "",
        _with_pulumi(units, environment=environment, versions=versions, protected=protected, has_record=has_record),
        _with_kubectl(units),
        _secrets(secret_names(units)),
        _images(sorted({image for unit in units for each in unit.objects for image in _image_names(each.inputs)})),
        _models(remote),
        _STAGES,
        _END,
    ]
    return "\n".join(part for part in parts if part)


def _head(units: Sequence[Unit], *, project: str, environment: str, has_record: bool) -> str:
    record = (
        f"\n| `{RECORD}` | Pulumi's record of what is there, as `pulumi stack import` takes it |" if has_record else ""
    )
    folders = "".join(f"\n| `{key}/` | the same objects for `kubectl` |" for key in sorted(_clusters(units)))
    return f"""\
# {project}, environment {environment}, without mlstack

Written by `mlstack eject`. Nothing here needs mlstack, and mlstack does not read it.

| | |
|---|---|
| `{PROGRAM}`, `Pulumi.yaml`, `requirements.txt` | pools and endpoints as a Pulumi program |{record}{folders}

Go on with one of the two, Pulumi or kubectl: each writes what the other would.
"""


def _pending(pending: Sequence[str]) -> str:
    rows = "\n".join(f"- {each}" for each in pending)
    return f"""\
**Not everything was applied when this was written**, so that the first preview shows what `mlstack plan` showed:

{rows}
"""


def _with_pulumi(
    units: Sequence[Unit],
    *,
    environment: str,
    versions: Mapping[str, str],
    protected: Collection[Address],
    has_record: bool,
) -> str:
    contexts = ", ".join(f"`{context}`" for context in sorted(set(_clusters(units).values()) - {""}))
    cluster = f", and a kubeconfig with {contexts}" if contexts else ""
    plugins = " ".join(sorted({f"{each.name} {each.version}" for each in (unit.provider for unit in units)}))
    take = (
        f"pulumi stack import --file {RECORD}    # takes over what is there, and changes nothing\n"
        if has_record
        else ""
    )
    shows = "no changes: `up` only notes what stands on what" if has_record else "what would be made"
    guarded = sorted({str(unit.address) for unit in units if unit.address in protected})
    protection = (
        f"""
Protected, as mlstack had them: {", ".join(f"`{each}`" for each in guarded)}. Pulumi refuses to replace or
delete them until `protect=True` is taken from the program and that was applied.
"""
        if guarded
        else ""
    )
    return f"""\
## With Pulumi

You need [Pulumi's command line](https://www.pulumi.com/docs/install) ({versions.get("pulumi", "3")}, or
newer), Python with `venv`{cluster}. In this folder:

```bash
pulumi login                  # where Pulumi keeps its record: its own service, or file://FOLDER, s3://BUCKET, …
{f"pulumi stack init {environment}":<30}# asks for a passphrase; `--secrets-provider awskms://…` names a key instead
{take}pulumi install                # a virtual environment with requirements.txt, and the plugin ({plugins})
pulumi preview                # {shows}
pulumi up
```

The passphrase is a new one of your own (`PULUMI_CONFIG_PASSPHRASE`, for commands that nobody sits at);
nothing in these files is encrypted with mlstack's. From here on: change the program, `pulumi up`, and commit
this folder without `venv/`.
{protection}
Names like `endpoints.…#deployment` are those of the record: who renames one adds `aliases`, or Pulumi makes
the object anew. mlstack itself waited for rollouts; remove the annotation `pulumi.com/skipAwait` from a
Deployment for `pulumi up` to wait. Labels in a `selector` cannot be changed.
"""


def _with_kubectl(units: Sequence[Unit]) -> str:
    both = sorted(_clusters(units).items())
    commands = "\n".join(
        f"kubectl{f' --context {context}' if context else ''} {what} --server-side --force-conflicts -f {folder}/{note}"
        for folder, context in both
        for what, note in (("diff", "     # shows nothing"), ("apply", ""))
    )
    return f"""\
## With kubectl

```bash
{commands}
```

`--force-conflicts`: the fields are in Pulumi's name so far. What is removed from the files stays in the
cluster until `kubectl delete`.
"""


def _secrets(names: Sequence[str]) -> str:
    if not names:
        return ""
    rows = "\n".join(f"- `{each}`" for each in names)
    return f"""\
## Secrets

Values are in none of these files. mlstack made these Secrets (or you did, those for pulling images); they
stay, and nobody renews them any more:

{rows}

To rotate one, make a new Secret with the same keys under another name (`kubectl create secret generic`), and
put that name into the program or the YAML: pods are then replaced one by one.
On another cluster they have to be there first.
"""


def _images(images: Sequence[str]) -> str:
    rows = "\n".join(f"- `{each}`" for each in images)
    return (
        f"""\
## Images

They are in the registry, by digest, and must stay there. mlstack built them; build your own when their
packages are to change.

{rows}
"""
        if images
        else ""
    )


def _models(remote: str | None) -> str:
    where = f" `{remote}`" if remote else ""
    return f"""\
## Models

They are in DVC's remote{where}, and stay as long as nobody removes them (`dvc gc -c`). Pods fetch them by
MD5: `MLSTACK_FETCH` of the init container. For another one: `dvc repro`, `dvc push`, and put the new `md5` of
`dvc.lock` there and into `mlstack.dev/model-version`.
"""


_STAGES = """\
## Stages

They are DVC's, in the repository: `dvc repro` runs them on the machine where it is called, in whatever Python
environment is active there, so install the packages of your lock file before; `dvc push` brings results to
the remote. Jobs in the namespace are runs that ended.
"""

_END = """\
## When it works

Do not call `mlstack destroy`: it would end what you have taken over. Remove `mlstack.yaml`, `mlstack.lock`
and `.mlstack/` from the repository, and the environment's state. Labels `mlstack.dev/…` are text without
effect, but for those in selectors.
"""


def _clusters(units: Iterable[Unit]) -> dict[str, str]:
    """Return the folder with YAML of each cluster, and its context; empty where that is kubectl's own choice."""
    return {unit.provider.key: str(unit.provider.settings.get("context", "")) for unit in units}


def _image_names(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key == "image" and isinstance(each, str):
                yield each
            else:
                yield from _image_names(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _image_names(each)
