"""Values of secrets: found at the moment of use, never shown, masked in everything that is kept.

`env://NAME` is a variable of mlstack's own environment; `file://PATH` a file, absolute or relative to the project
folder, whose last line ending is not part of the value, and which Git must not track.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.graph.safe_git import safe_environment
from mlstack.runner.masking import StreamMasker
from mlstack.runner.secret_patterns import SHORTEST, patterns_of
from mlstack.spec.address import Address
from mlstack.spec.spec import SecretRef

LARGEST = 1024 * 1024
"""The largest secret file, in bytes."""


class SecretValues:
    """Secret values by the name of their variable. Shows only names; nothing but `reveal` hands the values out."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __repr__(self) -> str:
        return f"SecretValues({', '.join(sorted(self._values))})"

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._values))

    def __len__(self) -> int:
        return len(self._values)

    def __reduce__(self) -> NoReturn:
        message = "secret values are never written anywhere"
        raise TypeError(message)

    def reveal(self) -> dict[str, str]:
        """Return the values, to be handed to a process and to nothing else."""
        return dict(self._values)

    def masker(self) -> "Masker":
        """Return what masks these values."""
        return Masker(self._values.values())

    def unmasked(self) -> tuple[str, ...]:
        """Return the names whose values are too short to be masked."""
        return tuple(sorted(name for name, value in self._values.items() if len(value) < SHORTEST))


class Masker:
    """Masks values, their lines and their common encodings (JSON, shell, URL, base64, hex) with `***`."""

    __slots__ = ("_patterns",)

    def __init__(self, values: Iterable[str]) -> None:
        found: set[bytes] = set()
        for value in values:
            found.update(patterns_of(value))
        self._patterns = tuple(sorted(found, key=lambda pattern: (-len(pattern), pattern)))

    def __repr__(self) -> str:
        return f"Masker({len(self._patterns)} patterns)"

    @property
    def patterns(self) -> tuple[bytes, ...]:
        """What is looked for, longest first: as secret as the values."""
        return self._patterns

    def text(self, text: str) -> str:
        """Return a whole text with every secret masked."""
        masker = self.stream()
        data = text.encode("utf-8", "surrogateescape")
        return (masker.feed(data) + masker.finish()).decode("utf-8", "surrogateescape")

    def stream(self) -> StreamMasker:
        """Return a masker for one stream of bytes, which may come in any chunks."""
        return StreamMasker(self._patterns)


def resolve_secrets(
    references: Mapping[str, SecretRef], *, address: Address, root: Path, environment: Mapping[str, str]
) -> SecretValues:
    """Find the values of all references of one resource.

    `environment` is where `env://` looks. Raises `MlstackError` with one diagnostic for each that cannot be had; they
    name reference and resource, never a value.
    """
    values: dict[str, str] = {}
    problems: list[Diagnostic] = []
    for name, reference in sorted(references.items()):
        found = _resolve(reference.uri, root=root, environment=environment)
        if isinstance(found, str):
            values[name] = found
        else:
            problems.append(_with_place(found, name=name, uri=reference.uri, address=address))
    if problems:
        raise MlstackError(*problems)
    return SecretValues(values)


def _resolve(uri: str, *, root: Path, environment: Mapping[str, str]) -> str | Diagnostic:
    scheme, _, rest = uri.partition("://")
    match scheme:
        case "env":
            value: str | Diagnostic = _from_variable(rest, environment)
        case "file":
            value = _from_file(root / Path(rest).expanduser())
        case _:
            return _problem(f"{scheme}:// is not known", hint="use env://NAME or file://PATH")
    if isinstance(value, str) and "\0" in value:
        return _problem("it holds a NUL byte, which no variable can carry", hint="encode it, for example as base64")
    return value


def _from_variable(name: str, environment: Mapping[str, str]) -> str | Diagnostic:
    value = environment.get(name)
    if value is None:
        return _problem(f"the variable {name} is not set", hint=f"set {name} in the environment of mlstack")
    return value or _problem(f"the variable {name} is empty", hint=f"set {name} in the environment of mlstack")


def _from_file(path: Path) -> str | Diagnostic:
    if _is_tracked(path):
        return _problem(
            f"Git tracks {path}: everybody with the repository has it",
            hint="take the file out of the repository, change the secret, and keep it outside or ignored",
            command=f"git rm --cached {path}",
        )
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        text = data.decode("utf-8")
    except OSError as error:
        return _problem(f"{path}: {error.strerror}", hint="create the file, or correct the path")
    except UnicodeDecodeError:
        return _problem(f"{path} is not UTF-8 text", hint="encode it, for example as base64")
    if len(data) > LARGEST:
        return _problem(f"{path} is larger than 1 MiB", hint="name a file that holds nothing but the secret")
    value = text.removesuffix("\n").removesuffix("\r")
    return value or _problem(f"{path} is empty", hint="write the secret into it")


def _is_tracked(path: Path) -> bool:
    import subprocess

    try:
        real = path.resolve()
        # A link that Git tracks is harmless; the file that it points to is what must not be tracked.
        command = ["git", "--literal-pathspecs", "-C", str(real.parent), "ls-files", "--error-unmatch", "--", real.name]
        done = subprocess.run(command, capture_output=True, env=safe_environment(), check=False, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def _problem(detail: str, *, hint: str, command: str = "") -> Diagnostic:
    return Diagnostic(
        code="secret-unavailable", summary="A secret cannot be had", detail=detail, hint=hint, command=command
    )


def _with_place(problem: Diagnostic, *, name: str, uri: str, address: Address) -> Diagnostic:
    import msgspec

    detail = f"{name} of {address} is {uri}: {problem.detail}"
    return msgspec.structs.replace(problem, detail=detail, address=address)
