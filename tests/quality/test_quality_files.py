"""The committed files: they hold nothing of the machine they were written on, and their links and commands work."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pytest

BIN = Path(sys.executable).parent

Texts = Mapping[str, str]


def report(rule: str, faults: list[str]) -> None:
    if faults:
        pytest.fail("\n  ".join([rule, *sorted(faults)]), pytrace=False)


def registry_hosts() -> set[str]:
    """The hosts of package registries that this machine is configured for, other than the public ones."""
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    variables = [value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_", "GOPROXY", "NPM_"))]
    addresses = re.findall(r"https?://[^\s'\",|]+", "\n".join([done.stdout, *variables]))
    hosts = {urlsplit(address).hostname or "" for address in addresses}
    return hosts - {"", "pypi.org", "files.pythonhosted.org", "proxy.golang.org", "localhost", "127.0.0.1"}


def lines_with(texts: Texts, pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{number}: {found[0]}"
        for name, text in texts.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if (found := pattern.search(line))
    ]


def test_no_path_of_this_machine_is_committed(texts: Texts, root: Path) -> None:
    places = {f"{root}/", f"{Path.home()}/", "/work" + "/"}
    pattern = re.compile(r"(?<![\w.])(?:" + "|".join(map(re.escape, sorted(places))) + r")\S*")
    report("Paths of one machine in committed files:", lines_with(texts, pattern))


def test_no_registry_of_this_machine_is_committed(texts: Texts) -> None:
    if hosts := registry_hosts():
        pattern = re.compile("|".join(map(re.escape, sorted(hosts))))
        report("Addresses of this machine's package registries in committed files:", lines_with(texts, pattern))


def test_locks_hold_names_versions_and_hashes_but_no_addresses(texts: Texts) -> None:
    locks = {
        name: text
        for name, text in texts.items()
        if re.search(r"(^|/)(requirements[\w.-]*\.txt|requirements/.*\.txt|pylock[\w.-]*\.toml|mlstack\.lock)$", name)
    }
    assert "requirements/dev.txt" in locks
    address = re.compile(
        r"https?://(?![\w.-]+\.invalid/)\S+|--(?:index-url|extra-index-url|find-links|trusted-host)\S*|file:\S+"
    )
    report("Addresses in lock files (compile them with `make lock`):", lines_with(locks, address))
    unpinned = [
        f"{name}: {line}"
        for name, text in locks.items()
        if name.endswith(".txt")
        for line in re.findall(r"^[A-Za-z0-9][^\n]*", text, re.MULTILINE)
        if "==" not in line or not line.endswith("\\")
    ]
    report("Lines of lock files without an exact version and hashes:", unpinned)


def test_generated_documents_are_fresh(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, root / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.fail(f"`make docs` has something to write:\n{done.stdout}{done.stderr}", pytrace=False)


def test_every_decision_is_listed(texts: Texts) -> None:
    index = texts["docs/decisions/README.md"]
    records = [name for name in texts if re.fullmatch(r"docs/decisions/\d{4}-.*\.md", name)]
    report("Decisions that the index does not list:", [r for r in records if PurePosixPath(r).name not in index])
    numbers = [PurePosixPath(name).name[:4] for name in records]
    assert len(numbers) == len(set(numbers)), "two decisions have one number"


def test_files_that_the_architecture_names_exist(texts: Texts, root: Path) -> None:
    named = set(re.findall(r"`([\w./-]+\.py)\b", texts["docs/architecture.md"]))
    assert len(named) > 40
    missing = [name for name in named if not (root / name).exists() and not (root / "mlstack" / name).exists()]
    report("docs/architecture.md names files that do not exist:", missing)


# ------------------------------------------------------------------------------------------------------- links


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    plain = re.sub(r"[`*_]|\[([^\]]*)\]\([^)]*\)", lambda found: found[1] or "", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL))


def test_relative_links_of_documents_resolve(texts: Texts, root: Path) -> None:
    faults = []
    documents = {name: text for name, text in texts.items() if name.endswith(".md")}
    anchors = {
        name: {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
        for name, text in documents.items()
    }
    for name, text in documents.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
            if urlsplit(target).scheme:
                continue
            path, _, anchor = target.partition("#")
            found = os.path.normpath(PurePosixPath(name).parent / path) if path else name
            if not (root / found).exists():
                faults.append(f"{name}: {target}: no such file")
            elif anchor and found in anchors and anchor not in anchors[found]:
                faults.append(f"{name}: {target}: no such heading")
    report("Links that lead nowhere:", faults)


# ---------------------------------------------------------------------------------------------------- commands


def shell_lines(text: str) -> Iterator[list[str]]:
    """The command lines of the shell blocks of a document, split into words; comments and output are left out."""
    for block in re.findall(r"^ *```(?:bash|sh|console)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        console = re.search(r"^ *\$ ", block, re.MULTILINE) is not None
        for line in re.sub(r"\\\n", " ", block).splitlines():
            command = line.strip()
            if console and not command.startswith("$ "):
                continue
            for part in re.split(r"&&|\|\||;|\|", command.removeprefix("$ ").partition(" #")[0]):
                if words := part.split():
                    yield words


def used(texts: Texts, program: str) -> dict[str, set[tuple[str, ...]]]:
    """How the documents call a program: document → the words after its name."""
    return {
        name: found
        for name, text in texts.items()
        if name.endswith(".md")
        and (found := {tuple(words[1:]) for words in shell_lines(text) if words[0] == program and len(words) > 1})
    }


def test_make_targets_in_documents_exist(texts: Texts) -> None:
    targets = set(re.findall(r"^([a-z-]+):", texts["Makefile"], re.MULTILINE))
    faults = [
        f"{name}: make {' '.join(words)}"
        for name, calls in used(texts, "make").items()
        for words in calls
        if not {word for word in words if "=" not in word} <= targets
    ]
    report("Documents name make targets that do not exist:", faults)


def test_mlstack_commands_and_flags_in_documents_exist(texts: Texts, tmp_path: Path) -> None:
    calls = {(name, words) for name, found in used(texts, "mlstack").items() for words in found}
    commands = sorted({words[0] for _, words in calls if not words[0].startswith("-")})
    helps = {}
    for command in commands:
        done = subprocess.run(
            [BIN / "mlstack", command, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        helps[command] = done.stdout if done.returncode == 0 else None
    faults = []
    for name, words in calls:
        if words[0].startswith("-"):
            continue
        described = helps[words[0]]
        if described is None:
            faults.append(f"{name}: mlstack {words[0]}: no such command")
            continue
        own = words[1 : words.index("--")] if "--" in words else words[1:]  # what follows is another program's
        flags = {word.partition("=")[0] for word in own if re.match(r"--?[a-zA-Z]", word)}
        faults += [
            f"{name}: mlstack {words[0]} {flag}: no such flag"
            for flag in flags
            if not re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", described)
        ]
    report("Documents call mlstack in ways that it does not know:", faults)
