"""Identities and times."""

import os
import re

import pytest

from mlstack.state.identity import ci_run, host_name, is_running, iso_time, new_id, now_iso, person, process_started


def test_ids_are_fresh() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{16}", one) for one in ids)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000.1239, "2023-11-14T22:13:20.124Z"),
        (1_700_000_000.9999, "2023-11-14T22:13:21.000Z"),
    ],
)
def test_times(seconds: float, text: str) -> None:
    assert iso_time(seconds) == text
    assert now_iso(lambda: seconds) == text


def test_this_process_is_running() -> None:
    started = process_started(os.getpid())
    assert started is not None
    assert is_running(os.getpid(), started)
    assert is_running(os.getpid(), started + 1), "the boot time may be read differently by a second"
    assert not is_running(os.getpid(), started - 3600)


def test_a_process_that_never_was() -> None:
    assert process_started(2**22 + 1) is None
    assert not is_running(2**22 + 1, 0.0)


def test_who(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GITHUB_ACTOR", "GITLAB_USER_LOGIN", "BUILD_USER_ID", "GITHUB_RUN_ID", "CI_JOB_URL", "BUILD_URL"):
        monkeypatch.delenv(variable, raising=False)
    assert person()
    assert host_name()
    assert ci_run() == ""
    monkeypatch.setenv("GITLAB_USER_LOGIN", "ada")
    monkeypatch.setenv("CI_JOB_URL", "https://gitlab.example/acme/-/jobs/1")
    assert person() == "ada"
    assert ci_run() == "https://gitlab.example/acme/-/jobs/1"


def test_a_number_without_a_name_is_somebody_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GITHUB_ACTOR", "GITLAB_USER_LOGIN", "BUILD_USER_ID", "USER"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 3_999_999)
    assert person() == "uid 3999999"
