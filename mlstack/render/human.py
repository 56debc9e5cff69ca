"""Numbers as people write them: durations, sizes, ages, counts."""

from datetime import UTC, datetime


def duration(seconds: float) -> str:
    """Return a duration: `0.4s`, `12s`, `3m 05s`, `2h 10m`, `3d 4h`."""
    if seconds < 0:
        seconds = 0.0
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def clock(seconds: float) -> str:
    """Return an elapsed time that keeps its place while it runs: `0:07`, `12:30`, `1:02:03`."""
    whole = max(0, int(seconds))
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def size(count: int) -> str:
    """Return a number of bytes in binary units: `512 B`, `1.5 KiB`, `20 MiB`."""
    amount = float(count)
    if amount < 1024:
        return f"{count} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        amount /= 1024
        if amount < 1024 or unit == "TiB":
            return f"{amount:.1f} {unit}" if amount < 9.95 else f"{amount:.0f} {unit}"
    raise AssertionError


def quantity(count: int) -> str:
    """Return a number of bytes as files write it, without a loss: `150Mi`, `16Gi`, `1500`."""
    for unit, amount in (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if count and count % amount == 0:
            return f"{count // amount}{unit}"
    return str(count)


def age(then: str, *, now: datetime | None = None) -> str:
    """Return how long ago an ISO 8601 time was: `just now`, `5 minutes ago`, `3 days ago`; `then` if it is no time."""
    try:
        moment = datetime.fromisoformat(then)
    except ValueError:
        return then
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    if seconds < 45:
        return "just now" if seconds > -45 else local_time(then)
    for limit, length, word in ((3600, 60, "minute"), (86400, 3600, "hour"), (86400 * 60, 86400, "day")):
        if seconds < limit:
            return f"{counted(max(1, round(seconds / length)), word)} ago"
    if seconds < 86400 * 730:
        return f"{counted(round(seconds / (86400 * 30.44)), 'month')} ago"
    return f"{counted(round(seconds / (86400 * 365.25)), 'year')} ago"


def local_time(then: str) -> str:
    """Return an ISO 8601 time in the local zone, to the second: `2026-01-31 14:05:09`; `then` if it is no time."""
    try:
        moment = datetime.fromisoformat(then)
    except ValueError:
        return then
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def counted(count: int, word: str, plural: str = "") -> str:
    """Return `1 stage`, `2 stages`, `2,000 files`."""
    return f"{count:,} {word if count == 1 else plural or word + 's'}"


def number(value: float) -> str:
    """Return a number with up to six significant digits, without noise: `0.7`, `12`, `1.5e-07`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return str(int(value))
    return f"{value:.6g}"
