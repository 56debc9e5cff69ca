"""Ports of the loopback for engines that cannot choose one themselves."""

import socket
from collections.abc import Callable
from contextlib import suppress
from random import SystemRandom

import psutil

from tests.engines import processes
from tests.engines.processes import EngineError, Process
from tests.engines.session import Session

TRIED = 5
UNASKED = range(10000, 20000)


def on_a_free_port(
    session: Session, engine: str, start: Callable[[int], Process], well: Callable[[int], bool] = lambda _: True
) -> int:
    """Start an engine on a port that is free, and on another when somebody takes that in the same moment.

    Returns the port when the engine itself listens there and is well.
    """
    for _ in range(TRIED):
        port = free_port()
        process = start(port)

        def ready(process: Process = process, port: int = port) -> bool:
            return listens(process, port) and well(port)

        try:
            processes.wait_until_ready(session, engine, process, ready)
        except EngineError as error:
            if "address already in use" not in str(error):
                raise
        else:
            return port
    raise EngineError(f"{engine}: each of {TRIED} free ports was taken by another program the moment after")


def free_port() -> int:
    """A port of the loopback that nobody has at this moment, nor gets without asking for this very one.

    Those that the system chooses itself, for a listener or a connection, are others: on a busy machine one of them is
    soon somebody else's. So are those that mlstack chooses for endpoints, and those of nodes.
    """
    for port in SystemRandom().sample(UNASKED, len(UNASKED)):
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise EngineError("no port of the loopback is free")


def listens(process: Process, port: int) -> bool:
    """Whether this very process listens there: whatever answers on the port may be somebody else's."""
    try:
        open_sockets = psutil.Process(process.pid).net_connections(kind="tcp")
    except psutil.Error:  # it has ended, and may be looked at no more
        return False
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in open_sockets)
