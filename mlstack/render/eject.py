"""Units as files that need no mlstack: a Pulumi program with its own classes, and Kubernetes' YAML."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mlstack.drivers.stacks import Object, Unit

PROGRAM = "__main__.py"
_ENGINE = "pulumi.com/"
_UPPER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9]+")
_WIDTH = 110
_OWN_CLASSES = ("apps", "autoscaling", "batch", "core", "networking.k8s.io", "policy", "scheduling.k8s.io")
"""Groups of the API for which Pulumi's package has classes; the others are custom resources."""

_HEAD = '''\
"""{project}, environment {environment}: what mlstack would have applied, as a Pulumi program of your own.

Written by `mlstack eject`. mlstack does not read it, and does not know of changes to it.
"""

import pulumi
import pulumi_kubernetes as k8s

# `pulumi config set adopt true`: what is there already is taken over. Without it, that is an error.
ADOPT = pulumi.Config().get_bool("adopt") or False


def options(provider: k8s.Provider, *needs: pulumi.Resource) -> pulumi.ResourceOptions:
    return pulumi.ResourceOptions(provider=provider, depends_on=list(needs))
'''


def program_text(units: Sequence[Unit], *, project: str, environment: str) -> str:
    """Return the Python program of these units, pools first."""
    lines = [_HEAD.format(project=project, environment=environment)]
    providers = {unit.provider.key: unit.provider for unit in units}
    for key, provider in sorted(providers.items()):
        given = "".join(f", {name}={_literal(value, 0)}" for name, value in sorted(provider.settings.items()))
        lines.append(f"\n{_variable(key)} = k8s.Provider({_literal(key, 0)}{given}, upsert_existing_objects=ADOPT)\n")
    for unit in units:
        lines.append(f"\n# {unit.address}\n")
        lines += [_resource(each, unit) for each in unit.objects]
    return "".join(lines)


def project_files(*, project: str, environment: str, versions: Mapping[str, str]) -> dict[str, str]:
    """Return what belongs to the program: Pulumi's project file, and its requirements (name → version)."""
    text = (
        f"name: {project}\n"
        f"description: {project}, environment {environment}, as mlstack would have applied it\n"
        "runtime:\n  name: python\n  options:\n    virtualenv: venv\n"
    )
    requirements = "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))
    return {"Pulumi.yaml": text, "requirements.txt": requirements}


def manifests(unit: Unit) -> str:
    """Return the objects of a unit as YAML for `kubectl apply`, without what only Pulumi's plugin understands."""
    import yaml

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - what is there twice is written twice
            return True

    texts = [yaml.dump(_without_engine(each.inputs), Dumper=Plain, sort_keys=False, width=120) for each in unit.objects]
    return "".join(f"---\n{text}" for text in texts)


def secret_names(units: Iterable[Unit]) -> list[str]:
    """Return the Secrets that the objects refer to, and that are in none of these files: `NAMESPACE/NAME`."""
    found = set()
    for unit in units:
        for each in unit.objects:
            namespace = each.inputs["metadata"].get("namespace", "")
            found |= {f"{namespace}/{name}" for name in _secrets(each.inputs)}
    return sorted(found)


def _resource(each: Object, unit: Unit) -> str:
    """Return the statement that makes an object."""
    inputs, group = each.inputs, each.type.partition(":")[2].rpartition(":")[0]
    api, _, version = group.rpartition("/")
    kind = inputs["kind"]
    own = api in _OWN_CLASSES
    name = f"k8s.{api.removesuffix('.k8s.io')}.{version}.{kind}" if own else "k8s.apiextensions.CustomResource"
    left = {key: value for key, value in inputs.items() if key not in ("apiVersion", "kind")}
    given = {} if own else {"api_version": inputs["apiVersion"], "kind": kind}
    given |= {_UPPER.sub("_", key).lower(): value for key, value in left.items()}
    arguments = "".join(f"    {key}={_literal(value, 4)},\n" for key, value in given.items())
    needs = "".join(f", {_variable(need if '#' in need else f'{unit.address}#{need}')}" for need in each.needs)
    opts = f"options({_variable(unit.provider.key)}{needs})"
    known_as = f"{unit.address}#{each.key}"
    return f"{_variable(known_as)} = {name}(\n    {_literal(known_as, 0)},\n{arguments}    opts={opts},\n)\n"


def _variable(text: str) -> str:
    plain = _NOT_IN_NAMES.sub("_", text).strip("_").lower()
    return plain if not plain[:1].isdigit() else f"_{plain}"


def _literal(value: Any, indent: int) -> str:
    """Return plain data as Python writes it, over several lines where it is long."""
    if isinstance(value, Mapping):
        return _block(
            "{", "}", [f"{_text(str(key))}: {_literal(each, indent + 4)}" for key, each in value.items()], indent
        )
    if isinstance(value, list | tuple):
        return _block("[", "]", [_literal(each, indent + 4) for each in value], indent)
    return _text(value) if isinstance(value, str) else repr(value)


def _block(start: str, end: str, parts: list[str], indent: int) -> str:
    line = f"{start}{', '.join(parts)}{end}"
    if len(line) + indent < _WIDTH and "\n" not in line:
        return line
    pad = " " * (indent + 4)
    return f"{start}\n{''.join(f'{pad}{part},' + chr(10) for part in parts)}{' ' * indent}{end}"


def _text(value: str) -> str:
    import json

    return json.dumps(value, ensure_ascii=False) if value.isprintable() else repr(value)


def _without_engine(inputs: Mapping[str, Any]) -> dict[str, Any]:
    about = dict(inputs["metadata"])
    notes = {key: value for key, value in about.pop("annotations", {}).items() if not key.startswith(_ENGINE)}
    return {**inputs, "metadata": {**about, **({"annotations": notes} if notes else {})}}


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key in ("secretKeyRef", "secretRef") and isinstance(each, Mapping):
                yield str(each["name"])
            elif key == "imagePullSecrets":
                yield from (str(one["name"]) for one in each)
            else:
                yield from _secrets(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _secrets(each)
