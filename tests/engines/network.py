"""A network of its own for each Docker engine, so that any number of them live beside each other on one machine.

An engine that writes rules of the firewall itself undoes those of another. Ours writes none: each session has a block
of addresses, one bridge in it, and three rules that name this block and nothing else.
"""

import contextlib
import ipaddress
import json
import subprocess
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network
from pathlib import Path

from tests.engines.processes import EngineError
from tests.engines.session import Session, machine_lock

# Debian's own folders first: another `runc` or `containerd` on the PATH is not the one that this engine is tested with.
SYSTEM = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
PRIVATE = ("172.28.0.0/14", "10.240.0.0/12", "192.168.192.0/18")
BLOCK = 21  # the first /24 of a block is the bridge's, its second half is for networks that tests make
RESERVED = "network*.json"
"""The files of a session that name its blocks: one counts as taken before anything of it stands."""


def bridge(session: Session) -> str:
    return f"mls{session.name}"  # an interface's name has at most 15 characters


def make(session: Session) -> IPv4Network:
    """Make a session's bridge and rules; returns the addresses for further networks."""
    remove(session)
    block = reserve(session, "network.json", BLOCK)
    name, gateway = bridge(session), next(block.subnets(new_prefix=24))[1]
    ip("link", "add", "name", name, "type", "bridge")
    ip("addr", "add", f"{gateway}/24", "dev", name)
    ip("link", "set", name, "up")
    for table, chain, rule in rules(block):
        iptables("-t", table, "-I", chain, *rule)
    return list(block.subnets(prefixlen_diff=1))[1]


def remove(session: Session) -> None:
    """Remove what `make` made, also half of it, also nothing."""
    written = session.folder / "network.json"
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
        for table, chain, rule in rules(IPv4Network(json.loads(written.read_text(encoding="utf-8")))):
            iptables("-t", table, "-D", chain, *rule, missing_ok=True)
        ip("link", "delete", bridge(session), missing_ok=True)
    written.unlink(missing_ok=True)


def reserve(session: Session, file: str, prefix: int) -> IPv4Network:
    """Take a block of addresses that no route of this machine and no session names, and write it into this file."""
    with machine_lock() as sessions:
        taken = _routes() + _reserved(sessions)
        for private in PRIVATE:
            for block in IPv4Network(private).subnets(new_prefix=prefix):
                if not any(block.overlaps(network) for network in taken):
                    (session.folder / file).write_text(json.dumps(str(block)), encoding="utf-8")
                    return block
    raise EngineError(f"this machine has routes to all of {', '.join(PRIVATE)}: none is free for containers")


def _routes() -> list[IPv4Network]:
    # "192.0.2.0/24 dev …", "broadcast 192.0.2.255 dev …", "default via 192.0.2.1 dev …"
    taken = []
    for line in ip("-4", "route", "show", "table", "all").splitlines():
        for word in line.split()[:3]:
            with contextlib.suppress(ValueError):
                taken.append(ipaddress.IPv4Network(word, strict=False))
    return taken


def _reserved(sessions: Path) -> list[IPv4Network]:
    taken = []
    for file in sessions.glob(f"*/{RESERVED}"):
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):  # its session ends at this moment
            taken.append(IPv4Network(json.loads(file.read_text(encoding="utf-8"))))
    return taken


def rules(block: IPv4Network) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    yield "nat", "POSTROUTING", ("-s", str(block), "!", "-d", str(block), "-j", "MASQUERADE")
    for side in ("-s", "-d"):  # an engine of the machine's user lets nothing through that it does not know
        yield "filter", "FORWARD", (side, str(block), "-j", "ACCEPT")


def ip(*words: str, missing_ok: bool = False) -> str:
    return run(["ip", *words], missing_ok=missing_ok)


def iptables(*words: str, missing_ok: bool = False) -> str:
    return run(["iptables", "--wait", "30", *words], missing_ok=missing_ok)


def run(command: Sequence[str | Path], *, missing_ok: bool = False) -> str:
    done = subprocess.run(command, env=SYSTEM, capture_output=True, text=True, check=False)
    if done.returncode and not missing_ok:
        raise EngineError(f"`{' '.join(map(str, command))}` says: {(done.stderr or done.stdout).strip()}")
    return done.stdout
