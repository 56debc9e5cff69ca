"""Units as files that need no mlstack: a Pulumi program with its own classes, and Kubernetes' YAML."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mlstack.drivers.stacks import Object, Provider, Unit
from mlstack.spec.address import Address, slug

PROGRAM = "__main__.py"
_ENGINE = "pulumi.com/"
_UPPER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9]+")
_WIDTH = 110
_OWN_CLASSES = ("apps", "autoscaling", "batch", "core", "networking.k8s.io", "policy", "scheduling.k8s.io")
"""Groups of the API for which Pulumi's package has classes; the others are custom resources."""

RECORD = "stack.json"
_HEAD = '''\
"""{project}, environment {environment}: what mlstack would have applied, as a Pulumi program of your own.

Written by `mlstack eject`. mlstack does not read it, and does not know of changes to it. README.md says how to begin.
"""

import pulumi
import pulumi_kubernetes as k8s


def options(provider: k8s.Provider, *needs: pulumi.Resource, protect: bool = False) -> pulumi.ResourceOptions:
    return pulumi.ResourceOptions(provider=provider, depends_on=list(needs), protect=protect)

'''


def program_text(units: Sequence[Unit], *, project: str, environment: str, protected: Collection[Address] = ()) -> str:
    """Return the Python program of these units, pools first; Pulumi protects what belongs to `protected` ones."""
    lines = [_HEAD.format(project=project, environment=environment)]
    providers = {unit.provider.key: unit.provider for unit in units}
    lines += [_provider(each) for _, each in sorted(providers.items())]
    grounds = _grounds(units)
    for unit in units:
        lines.append(f"\n# {unit.address}\n")
        lines += [_resource(each, unit, grounds, protect=unit.address in protected) for each in unit.objects]
    return "".join(lines)


def project_files(*, project: str, environment: str, versions: Mapping[str, str]) -> dict[str, str]:
    """Return what belongs to the program: Pulumi's project file, and its requirements (name → version)."""
    text = (
        f"name: {project}\n"
        f"description: {project}, environment {environment}, as mlstack would have applied it\n"
        "runtime:\n  name: python\n  options:\n    virtualenv: venv\n"
    )
    requirements = "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))
    return {"Pulumi.yaml": text, "requirements.txt": requirements, ".gitignore": "venv/\n"}


def manifest_names(units: Sequence[Unit]) -> dict[Address, str]:
    """Return where the YAML of each unit lies: a folder for each cluster, in the order in which it is applied."""
    width = len(str(len(units)))
    return {
        unit.address: f"{unit.provider.key}/{number:0{width}}-{slug(Address(unit.address.replace('@', '')))}.yaml"
        for number, unit in enumerate(units, start=1)
    }


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


def _provider(provider: Provider) -> str:
    """Return the statement that makes a provider.

    Pulumi's class takes KUBECONFIG for a setting of its own, so that the provider would differ from shell to shell.
    """
    key = provider.key
    told = {name: value for name, value in sorted(provider.settings.items()) if isinstance(value, str)}  # no pod's own
    if provider.identifier:  # as in the record that goes along: without it, all would be made anew
        told[_UPPER.sub("_", provider.identifier).lower()] = key
    given = "".join(f"    {name}={_literal(value, 4)},\n" for name, value in told.items())
    if "kubeconfig" not in told:
        given += '    opts=pulumi.ResourceOptions(ignore_changes=["kubeconfig"]),  # KUBECONFIG, if it is set\n'
    return f"\n{_variable(key)} = k8s.Provider(\n    {_literal(key, 0)},\n{given})\n"


Grounds = Mapping[tuple[str, str, str], str]
"""What endpoints stand on: key of the provider, kind, name → the name in the program."""


def _grounds(units: Sequence[Unit]) -> Grounds:
    """Return what pools make and endpoints name. Those are two stacks of mlstack's, and one here: order is said."""
    return {
        (unit.provider.key, each.inputs["kind"], each.inputs["metadata"]["name"]): f"{unit.address}#{each.key}"
        for unit in units
        if unit.stack == "platform"
        for each in unit.objects
    }


def _needs(each: Object, unit: Unit, grounds: Grounds) -> list[str]:
    """Return what is made before an object, as names in the program."""
    own = [need if "#" in need else f"{unit.address}#{need}" for need in each.needs]
    if unit.stack == "platform":
        return own
    named = [(unit.provider.key, kind, name) for kind, name in _named(each.inputs)]
    return list(dict.fromkeys([*own, *(grounds[name] for name in named if name in grounds)]))


def _named(inputs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield kinds and names of objects that others name: its namespace, and what a pod runs as."""
    yield "Namespace", inputs["metadata"].get("namespace", "")
    pod = inputs.get("spec", {}).get("template", {}).get("spec", {})
    yield "ServiceAccount", pod.get("serviceAccountName", "")
    yield "PriorityClass", pod.get("priorityClassName", "")


def _resource(each: Object, unit: Unit, grounds: Grounds, *, protect: bool) -> str:
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
    needs = "".join(f", {_variable(need)}" for need in _needs(each, unit, grounds))
    opts = f"options({_variable(unit.provider.key)}{needs}{', protect=True' if protect else ''})"
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
