"""Which Python scripts and modules a command starts, read from its text; nothing is run.

Understands several commands (`&&`, `;`, `|`, new lines), `VAR=x`, `env`, `cd folder`, wrappers such as `uv run` and
`torchrun`, and `python`, `python3.11`, `path/to/python` with `x.py`, `-m package.module` or `-c code`.
"""

import re
from posixpath import normpath
from typing import Literal

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """One Python entry of a command. `directory` is where it is started, `paths` what its `PYTHONPATH` adds."""

    kind: Literal["script", "module", "code"]
    text: str
    directory: str
    paths: tuple[str, ...] = ()


_PLAIN = re.compile(r"[\w./=:,@%+ \t-]*")
_PYTHON = re.compile(r"(?:.*/)?(?:python|pypy)(?:\d+(?:\.\d+)*)?t?|\$\{?PYTHON\}?")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_WITH_VALUE = frozenset({"-W", "-X", "--check-hash-based-pycs"})
_REDIRECTION = re.compile(r"\d*(?:[<>]|&>|>&|<&)[<>&|]*(.*)", re.DOTALL)
_SEPARATORS = frozenset({"&&", "||", ";", "|", "&", "|&", "(", ")", ";;"})


def find_entries(cmd: str, *, directory: str, paths: tuple[str, ...] = ()) -> tuple[Entry, ...]:
    """Return the Python entries of `cmd`, in order, when it is started in `directory` (relative to the project)."""
    entries: list[Entry] = []
    for words in _split(cmd):
        if words[0] == "cd" and len(words) == 2 and not words[1].startswith(("/", "~", "$", "-")):
            directory = normpath(f"{directory}/{words[1]}")
            continue
        entries += _entries_of(words, directory, paths)
    return tuple(entries)


def _split(cmd: str) -> list[list[str]]:
    """Return the words of each simple command."""
    if _PLAIN.fullmatch(cmd):
        return [cmd.split()] if cmd.strip() else []
    import shlex

    words: list[str]
    commands: list[list[str]] = []
    for line in cmd.replace("\\\n", " ").split("\n"):
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()")
        lexer.whitespace_split = True
        words = []
        try:
            for word in lexer:
                if word in _SEPARATORS:
                    commands.append(words)
                    words = []
                else:
                    words.append(word)
        except ValueError:  # a quote that goes on in the next line: what was read of this line is enough
            words += line.split()
        commands.append(words)
    return [words for words in map(_without_redirections, commands) if words]


def _without_redirections(words: list[str]) -> list[str]:
    """Leave out `> file`, `2>&1` and the like: what is written or read there is no argument."""
    kept: list[str] = []
    is_target = False
    for word in words:
        found = None if is_target else _REDIRECTION.fullmatch(word)
        if found is None and not is_target:
            kept.append(word)
        is_target = found is not None and not found[1]
    return kept


def _entries_of(words: list[str], directory: str, paths: tuple[str, ...]) -> list[Entry]:
    """Return the entries of one simple command: a wrapper such as torchrun may name a module and a script."""
    found: list[Entry] = []
    index = 0
    while index < len(words):
        word = words[index]
        assigned = _ASSIGNMENT.fullmatch(word)
        if assigned is not None and assigned[1] == "PYTHONPATH":
            paths = (*_folders(assigned[2], directory), *paths)
        elif _PYTHON.fullmatch(word):
            entry, index = _after_python(words, index + 1, directory, paths)
            if entry is not None:
                found.append(entry)
                if entry.kind != "module":
                    break
            continue
        elif word.endswith(".py") and assigned is None:
            found.append(Entry("script", word, directory, paths))
            break
        elif word == "-m" and index + 1 < len(words) and _MODULE.fullmatch(words[index + 1]):
            found.append(Entry("module", words[index + 1], directory, paths))
            index += 1
        index += 1
    return found


def _after_python(words: list[str], index: int, directory: str, paths: tuple[str, ...]) -> tuple[Entry | None, int]:
    """Return what the interpreter is told to run, and where the words after that begin."""
    while index < len(words):
        word = words[index]
        following = words[index + 1] if index + 1 < len(words) else ""
        if word in _WITH_VALUE:
            index += 2
        elif re.fullmatch(r"-[a-zA-Z]*m", word):
            return (Entry("module", following, directory, paths) if _MODULE.fullmatch(following) else None), index + 2
        elif re.fullmatch(r"-[a-zA-Z]*c", word):
            return Entry("code", following, directory, paths), index + 2
        elif word.startswith("-") and word != "-":
            index += 1
        else:
            is_script = word.endswith(".py") or "." not in word.rpartition("/")[2]
            return (Entry("script", word, directory, paths) if is_script and word != "-" else None), index + 1
    return None, index


def _folders(value: str, directory: str) -> list[str]:
    """Return the folders of a `PYTHONPATH` that lie in the project."""
    parts = (part for part in value.split(":") if part and not part.startswith(("/", "$", "~")))
    return [normpath(f"{directory}/{part}") for part in parts]
