"""What DVC leaves out of a folder: `.git`, `.hg`, `.dvc`, nested DVC projects, and the patterns of `.dvcignore`.

Follows `dvc.ignore` and `dvc.pathspec_math` of DVC 3.6x, without importing DVC (135 ms). `pathspec` is imported only
when there is a pattern.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from mlstack.diagnostics import Diagnostic, MlstackError
from mlstack.spec.plain_files import read_plain

DVCIGNORE = ".dvcignore"
_LARGEST = 1 << 20
_DEFAULTS = (".hg/", ".git/", ".git", ".dvc/")
_DEFAULT_FOLDERS = frozenset({".hg", ".git", ".dvc"})


class _Pattern(NamedTuple):
    regex: re.Pattern[str]
    ignores: bool
    folders_only: bool


class IgnoreRules:
    """The rules of one project. `top` is the folder of the DVC project around `root` (`root` if there is none)."""

    def __init__(self, root: Path) -> None:
        self.top = _find_top(root)
        self._texts: dict[str, tuple[str, ...]] = {}
        self._compiled: dict[tuple[str, ...], tuple[_Pattern, ...]] = {}

    def below(self, folder: Path) -> "FolderRules":
        """Return the rules for what lies in `folder`: those of all `.dvcignore` files from the top down to it."""
        if not folder.is_relative_to(self.top):
            return FolderRules((), "", is_ignored=False)
        parts = folder.relative_to(self.top).parts
        texts: list[str] = []
        is_ignored = False
        here = ""
        for part in ("", *parts):
            if part:
                here = f"{here}/{part}" if here else part
                rules = FolderRules(self._patterns(tuple(texts)), "", is_ignored=False)
                is_ignored = is_ignored or rules.ignores(here, is_folder=True) or self._is_nested_project(here)
            texts += self._read(here)
        return FolderRules(self._patterns(tuple(texts)), "/".join(parts), is_ignored=is_ignored)

    def _is_nested_project(self, folder: str) -> bool:
        return os.path.lexists(self.top / folder / ".dvc")

    def _read(self, folder: str) -> tuple[str, ...]:
        """Return the patterns of the `.dvcignore` in `folder`, rewritten to be relative to the top."""
        if folder not in self._texts:
            self._texts[folder] = _read_patterns(self.top, folder)
        return self._texts[folder]

    def _patterns(self, texts: tuple[str, ...]) -> tuple[_Pattern, ...]:
        if not texts:
            return ()
        if texts not in self._compiled:
            self._compiled[texts] = tuple(reversed(_compile((*_DEFAULTS, *texts))))
        return self._compiled[texts]


class FolderRules:
    """The rules below one folder; `prefix` is that folder relative to the top, "" for the top itself."""

    def __init__(self, patterns: tuple[_Pattern, ...], prefix: str, *, is_ignored: bool) -> None:
        self.has_patterns = bool(patterns)
        self.is_ignored = is_ignored
        self.prefix = f"{prefix}/" if prefix else ""
        self._patterns = patterns

    def described(self) -> list[tuple[str, bool, bool]]:
        """Return the patterns for those who match elsewhere: regex on `prefix` + path, ignores or not, folders only.

        The first that matches decides.
        """
        return [(each.regex.pattern, each.ignores, each.folders_only) for each in self._patterns]

    def ignores(self, path: str, *, is_folder: bool) -> bool:
        """Whether `path` (relative to the folder; its own parents are known not to be ignored) is left out."""
        if not self._patterns:
            name = path.rpartition("/")[2]
            return name == ".git" or (is_folder and name in _DEFAULT_FOLDERS)
        whole = self.prefix + path
        for pattern in self._patterns:
            if pattern.folders_only and not is_folder:
                continue
            if pattern.regex.match(whole) or (is_folder and pattern.regex.match(f"{whole}/")):
                return pattern.ignores
        return False


def _find_top(root: Path) -> Path:
    for folder in (root, *root.parents):
        if (folder / ".dvc").is_dir():
            return folder
    return root


def _read_patterns(top: Path, folder: str) -> tuple[str, ...]:
    try:
        lines = read_plain(top, f"{folder}/{DVCIGNORE}" if folder else DVCIGNORE, most=_LARGEST).decode().split("\n")
    except (OSError, UnicodeDecodeError):
        return ()
    patterns = (line.strip() for line in lines)
    kept = [pattern for pattern in patterns if pattern and not pattern.startswith("#")]
    return tuple(_move_up(pattern, folder) if folder else pattern for pattern in kept)


def _move_up(pattern: str, folder: str) -> str:
    """Rewrite a pattern of `folder` as one of the top (`dvc.pathspec_math.change_rule`)."""
    negation, rule = ("!", pattern[1:]) if pattern.startswith("!") else ("", pattern)
    anchored = "/" in rule[:-1] and not rule.startswith("**/")
    rule = rule.removeprefix("/") if anchored else rule.removeprefix("**/")
    rule = rule.removeprefix("\\")
    return f"{negation}/{folder}/{'' if anchored else '**/'}{rule}"


def _compile(texts: tuple[str, ...]) -> list[_Pattern]:
    try:
        from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern
    except ImportError:  # pathspec < 1, as in DVC
        from pathspec.patterns.gitwildmatch import GitWildMatchPattern as GitIgnoreSpecPattern

    compiled = []
    for text in texts:
        regex, ignores = GitIgnoreSpecPattern.pattern_to_regex(text)
        if regex is not None and ignores is not None:
            compiled.append(_Pattern(_bounded(str(regex)), ignores, text.endswith("/")))
    return compiled


_FIXED = r"(?:\\.|\[\^/\](?!\*)|[^\\\[\](){}|*+?^$.])+"
_STAR = re.compile(rf"\[\^/\]\*({_FIXED})(?=\[\^/\]\*)")
_MOST_STARS, _MOST_SPANS = 3, 2


def _bounded(regex: str) -> re.Pattern[str]:
    """Compile a pattern so that no name makes it try for hours.

    Between two `*`, the first place that fits is as good as any later one: what follows is taken by the second `*`.
    """
    text = _STAR.sub(r"(?>[^/]*?\1)", regex)
    if len(re.findall(r"\[\^/\]\*(?!\?)", text)) > _MOST_STARS or len(re.findall(r"\.[+*]", text)) > _MOST_SPANS:
        raise MlstackError(_too_complex())
    return re.compile(text)


def _too_complex() -> Diagnostic:
    return Diagnostic(
        code="ignore-pattern-too-complex",
        summary="A pattern in .dvcignore cannot be matched in reasonable time",
        detail=f"A line holds more than {_MOST_SPANS} `**`, or too many `*` between sets like [a-z].",
        hint="Write several simpler lines.",
    )
