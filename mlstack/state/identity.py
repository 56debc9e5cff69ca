"""Who acts: identities of people, hosts and processes, fresh IDs, and the time as it is written down."""

import os
import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds since the epoch, as `time.time` gives them."""

START_TOLERANCE = 5.0
"""Seconds by which two readings of one process's start may differ: systems compute it from the boot time, which moves
a little when the clock is set. A process ID is not given out again that fast."""


def new_id() -> str:
    """Return a fresh random ID of 16 hex digits, for applies and locks."""
    return os.urandom(8).hex()


def new_lineage() -> str:
    """Return a fresh UUID, which an environment keeps for life."""
    import uuid

    return str(uuid.uuid4())


def iso_time(seconds: float) -> str:
    """Write a time down as ISO 8601 in UTC with milliseconds; such texts sort as the times do."""
    millis = round(seconds * 1000)
    whole, rest = divmod(millis, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{rest:03d}Z"


def now_iso(clock: Clock = time.time) -> str:
    """Return the time of `clock` as `iso_time` writes it."""
    return iso_time(clock())


def host_name() -> str:
    """Return the name of this machine, which records of locks, runs and endpoints carry."""
    return os.uname().nodename


def person() -> str:
    """Return who acts: the actor that a CI system names, else the login name."""
    for variable in ("GITHUB_ACTOR", "GITLAB_USER_LOGIN", "BUILD_USER_ID"):
        if named := os.environ.get(variable):
            return named
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # containers often run under a number that has no name
        return os.environ.get("USER") or f"uid {os.getuid()}"


def ci_run() -> str:
    """Return the address of the CI run that this process belongs to, or an empty string."""
    get = os.environ.get
    if run := get("GITHUB_RUN_ID"):
        return f"{get('GITHUB_SERVER_URL', 'https://github.com')}/{get('GITHUB_REPOSITORY', '')}/actions/runs/{run}"
    return get("CI_JOB_URL") or get("BUILD_URL") or ""


def process_started(pid: int) -> float | None:
    """Return when a process of this machine started (seconds since the epoch); None when there is no such process.

    A process that has ended and only waits to be collected by its parent counts as gone.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.create_time()
    except psutil.NoSuchProcess:
        return None


def is_running(pid: int, started: float) -> bool:
    """Tell whether this very process of this machine, and not a later one with the same ID, is still there."""
    import psutil

    try:
        found = process_started(pid)
    except psutil.AccessDenied:
        return True  # it is there, it is somebody else's: nothing that may be called dead
    return found is not None and abs(found - started) <= START_TOLERANCE
