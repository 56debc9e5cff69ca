"""A project in a folder of its own, driven only through the installed programs, as a person would."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
BIN = Path(sys.executable).parent

Done = subprocess.CompletedProcess[str]


def clean_environment(home: Path, cache: Path) -> dict[str, str]:
    """Nothing of the person who runs the tests but the PATH and how packages are had on this machine."""
    kept = {"PATH", "LANG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}
    found = {name: value for name, value in os.environ.items() if name in kept or name.startswith(("UV_", "PIP_"))}
    uv_cache = subprocess.run([BIN / "uv", "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    return found | {
        "PATH": f"{BIN}{os.pathsep}{found.get('PATH', os.defpath)}",
        "HOME": str(home),
        "XDG_CACHE_HOME": str(cache),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "UV_CACHE_DIR": uv_cache,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "A Tester",
        "GIT_AUTHOR_EMAIL": "tester@example.com",
        "GIT_COMMITTER_NAME": "A Tester",
        "GIT_COMMITTER_EMAIL": "tester@example.com",
        "DVC_NO_ANALYTICS": "1",
        "DVC_GLOBAL_CONFIG_DIR": str(home / ".dvc-global"),
        "DVC_SYSTEM_CONFIG_DIR": str(home / ".dvc-system"),
        "NO_COLOR": "1",
    }


@dataclass
class Workspace:
    """One clone. `environment` is what its commands see."""

    root: Path
    environment: Mapping[str, str]

    # ------------------------------------------------------------------------------------------------ programs

    def call(self, program: str | Path, arguments: Sequence[str], *, code: int | None = 0) -> Done:
        """Run a program in the project; fails with everything it said unless it exits with `code` (None: whatever)."""
        done = subprocess.run(
            [program, *arguments], cwd=self.root, env=self.environment, capture_output=True, text=True, check=False
        )
        if code is not None and done.returncode != code:
            line = f"{Path(program).name} {' '.join(arguments)}"
            said = f"--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
            raise AssertionError(f"`{line}` exited with {done.returncode}, not {code}:\n{said}")
        return done

    def mlstack(self, *arguments: str, code: int | None = 0) -> Done:
        """Run the installed `mlstack`."""
        return self.call(BIN / "mlstack", arguments, code=code)

    def git(self, *arguments: str) -> str:
        """Run Git and return what it printed."""
        return self.call("git", arguments).stdout

    def dvc(self, *arguments: str, path: Path | None = None) -> str:
        """Run DVC and return what it printed; `path` comes first on the PATH of the stages that it runs."""
        before = self.environment
        if path is not None:
            self.environment = {**before, "PATH": f"{path}{os.pathsep}{before['PATH']}"}
        try:
            return self.call(BIN / "dvc", arguments).stdout
        finally:
            self.environment = before

    # ------------------------------------------------------------------------------------------------ the plan

    def init(self) -> None:
        """Make the project ready to record results, and commit that."""
        self.mlstack("init")
        self.commit("mlstack init")

    def plan(self, *arguments: str) -> dict[str, Any]:
        """The plan as JSON."""
        done = self.mlstack("plan", "--json", *arguments, code=None)
        assert done.stdout, f"there is no plan:\n{done.stderr}"
        document = json.loads(done.stdout)
        assert isinstance(document, dict)
        return document

    def actions(self, *arguments: str) -> dict[str, str]:
        """What the plan would do, by address; rows with nothing to do are left out."""
        return {
            row["address"]: "/".join(row["change"]["actions"])
            for row in self.plan(*arguments)["resource_changes"]
            if row["change"]["actions"] != ["no-op"]
        }

    def row(self, address: str) -> dict[str, Any]:
        """One row of the plan."""
        return next(row for row in self.plan()["resource_changes"] if row["address"] == address)

    def assert_settled(self) -> None:
        """mlstack has nothing to do, says so by its exit code, and DVC agrees."""
        done = self.mlstack("plan", "--detailed-exitcode", code=None)
        assert done.returncode == 0, done.stdout + done.stderr
        status = self.dvc("status", "--json")
        assert json.loads(status) == {}, status

    def url(self, endpoint: str) -> str:
        """Where an endpoint is asked."""
        recorded = json.loads(self.mlstack("show", endpoint, "--json").stdout)["recorded"]
        url = recorded["attributes"]["url"]
        assert isinstance(url, str)
        assert url.startswith("http://127.0.0.1:")
        return url

    # ------------------------------------------------------------------------------------------------ files

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a text that occurs in a file."""
        path = self.root / name
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{name} does not contain {old!r}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def commit(self, message: str) -> str:
        """Commit everything and return the commit."""
        self.git("add", "-A")
        self.git("commit", "-qm", message, "--allow-empty")
        return self.git("rev-parse", "HEAD").strip()

    def python(self) -> Path:
        """The folder of the `python` of the project's own environment: what a person puts on the PATH.

        Beside it in the cache there are those of other tests, which may be half made at this moment.
        """
        said = self.mlstack("shell", "--", "python", "-c", "import sys; print(sys.executable)").stdout
        return Path(said.strip()).parent

    # ------------------------------------------------------------------------------------------------ processes

    def processes(self) -> list[psutil.Process]:
        """The processes that belong to this project: their command line or folder lies in it."""
        mine = []
        for process in psutil.process_iter():
            try:
                places = [*process.cmdline(), process.cwd()]
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
            if process.pid != os.getpid() and any(str(self.root) in place for place in places):
                mine.append(process)
        return mine

    def running(self, word: str) -> bool:
        """Whether a process of the project has this word in its command line."""
        return any(word in part for line in self._command_lines() for part in line)

    def _command_lines(self) -> Iterator[list[str]]:
        for process in self.processes():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # a zombie is a NoSuchProcess
                yield process.cmdline()

    def kill_everything(self) -> int:
        """SIGKILL every process of the project, supervisors first or last as it comes; return how many there were."""
        killed = 0
        while found := self.processes():
            for process in found:
                try:
                    process.kill()
                    killed += 1
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(found, timeout=10)
        return killed


def without_endpoint(workspace: Workspace) -> None:
    """Cut models and endpoints out of the file, for tests of stages alone."""
    path = workspace.root / "mlstack.yaml"
    head, _, _ = path.read_text(encoding="utf-8").partition("\nmodels:")
    path.write_text(head, encoding="utf-8")


def start_project(example: str, folder: Path, environment: Mapping[str, str]) -> Workspace:
    """Copy an example and make it a Git repository with one commit: what a person has before mlstack comes in."""
    ignore = shutil.ignore_patterns("__pycache__", ".mlstack", ".dvc", ".venv")
    shutil.copytree(EXAMPLES / example, folder, ignore=ignore)
    workspace = Workspace(folder, environment)
    workspace.git("init", "-q", "-b", "main")
    workspace.commit("Start")
    return workspace
