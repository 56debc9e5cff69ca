"""Amounts of compute as Kubernetes writes them itself: what is written otherwise looks changed when it is read back."""

_BINARY = (("Pi", 2**50), ("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10))
_DECIMAL = (("P", 10**15), ("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3))


def cpu_text(cores: float) -> str:
    """Return cores as a quantity: `2`, `500m`."""
    milli = max(1, round(cores * 1000))
    return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"


def memory_text(amount: float) -> str:
    """Return bytes as a quantity: `16Gi`, `500M`."""
    whole = int(amount)
    for unit, size in (*_BINARY, *_DECIMAL):
        if whole and whole % size == 0:
            return f"{whole // size}{unit}"
    return str(whole)
