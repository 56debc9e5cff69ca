"""The network of the real node: a network namespace, joined to this machine by one pair of interfaces.

What the node's programs do to a network, the bridge of its pods and the hundreds of rules of Services, they do in
there, where no other cluster and no engine of the machine's user is. Outside there are two routes, to the pods and to
the Services, and a handful of rules that name this session's addresses and nothing else.
"""

from collections.abc import Iterator
from pathlib import Path

from tests.engines import addresses, network
from tests.engines.addresses import Addresses
from tests.engines.network import ip, iptables, run
from tests.engines.session import Session

NAMESPACES = Path("/run/netns")
INSIDE = "eth0"


def namespace(session: Session) -> Path:
    return NAMESPACES / f"mlstack-{session.name}"


def interface(session: Session) -> str:
    """This machine's end of the pair."""
    return f"mln{session.name}"  # an interface's name has at most 15 characters


def within(session: Session) -> list[str | Path]:
    """The words before a command that is to run in the node's network."""
    # Not `ip netns exec`: that gives the command a /sys of its own, in which there are no cgroups.
    return ["/usr/bin/nsenter", f"--net={namespace(session)}"]


def make(session: Session) -> Addresses:
    """Make the node's network, unless it is there."""
    ours = addresses.addresses(session)
    if namespace(session).exists():
        return ours
    outside = interface(session)
    ip("netns", "add", namespace(session).name)
    ip("link", "add", "name", outside, "type", "veth", "peer", "name", INSIDE, "netns", namespace(session).name)
    ip("addr", "add", f"{ours.machine}/{ours.link}", "dev", outside)
    ip("link", "set", outside, "up")
    # What listens on this machine's loopback only, as engines and servers of tests do, is to be reached from pods.
    Path(f"/proc/sys/net/ipv4/conf/{outside}/route_localnet").write_text("1", encoding="utf-8")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="utf-8")
    for words in (
        ("addr", "add", f"{ours.node}/{ours.link}", "dev", INSIDE),
        ("link", "set", INSIDE, "up"),
        ("link", "set", "lo", "up"),
        ("route", "add", "default", "via", str(ours.machine)),
    ):
        run([*within(session), "ip", *words])
    run([*within(session), "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])
    for reached in (ours.pods, ours.services):
        ip("route", "add", str(reached), "via", str(ours.node))
    for table, chain, rule in _rules(session, ours):
        iptables("-t", table, "-I", chain, *rule)
    return ours


def remove(session: Session) -> None:
    """Remove what `make` made, also half of it, also nothing. Routes go with the interface."""
    if (ours := addresses.recorded(session)) is not None and namespace(session).exists():
        for table, chain, rule in _rules(session, ours):
            iptables("-t", table, "-D", chain, *rule, missing_ok=True)
        ip("link", "delete", interface(session), missing_ok=True)
        ip("netns", "delete", namespace(session).name, missing_ok=True)


def _rules(session: Session, ours: Addresses) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    yield from network.rules(ours.block)
    here = ("-d", str(ours.machine), "-j", "DNAT", "--to-destination", "127.0.0.1")
    yield "nat", "PREROUTING", ("-i", interface(session), *here)
    yield "nat", "OUTPUT", here  # so that one URL is right for pods and for what runs on this machine
