"""The addresses of a session's cluster: chosen before anything of it runs, so that two clusters never share one."""

import json
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from tests.engines import network
from tests.engines.session import Session

FILE = "network-kubernetes.json"  # network.RESERVED finds it
PREFIX = 20


@dataclass(frozen=True)
class Addresses:
    """One block: a first /22 for the link between the machine and its node, a second for pods, half for Services."""

    block: IPv4Network

    @property
    def machine(self) -> IPv4Address:
        """This machine, as the node and its pods see it. The machine itself knows it under this address, too."""
        return self.block[1]

    @property
    def node(self) -> IPv4Address:
        return self.block[2]

    @property
    def link(self) -> str:
        """The length of the prefix of the two addresses above."""
        return "30"

    @property
    def pods(self) -> IPv4Network:
        return list(self.block.subnets(new_prefix=22))[1]

    @property
    def services(self) -> IPv4Network:
        return list(self.block.subnets(new_prefix=21))[1]

    @property
    def api(self) -> IPv4Address:
        """The Service `kubernetes`, under which pods find the API server."""
        return self.services[1]


def addresses(session: Session) -> Addresses:
    """Those of a session, the same at each call."""
    if (written := recorded(session)) is not None:
        return written
    return Addresses(network.reserve(session, FILE, PREFIX))


def recorded(session: Session) -> Addresses | None:
    """Those that a session has taken, if it has."""
    try:
        return Addresses(IPv4Network(json.loads((session.folder / FILE).read_text(encoding="utf-8"))))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
