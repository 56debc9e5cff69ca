"""The lines of a pod's log as they are written, each once, however often the connection to the cluster breaks."""

import re
from collections.abc import Iterator

from mlstack.drivers.kubernetes.client import Kube
from mlstack.drivers.kubernetes.job_objects import STAGE_CONTAINER

_STAMPED = re.compile(rb"(\d{4}-\d\d-\d\dT[0-9:.]+Z) ?(.*)", re.DOTALL)


class LogLines:
    """The log of one pod; `more` may be asked again when it broke off, and goes on behind what it gave before."""

    def __init__(self, kube: Kube, pod: str, namespace: str) -> None:
        self.pod = pod
        self._kube, self._namespace = kube, namespace
        self._last = b""

    def more(self) -> Iterator[bytes]:
        """Yield what is written from now on, until the pod ends. Raises `MlstackError` when the cluster goes away."""
        since = self._last.decode()
        for line in self._kube.log(
            self.pod, self._namespace, container=STAGE_CONTAINER, follow=True, timestamps=True, since=since
        ):
            stamped = _STAMPED.fullmatch(line)
            if stamped is None:  # a line that the cluster itself says
                yield line
            elif _in_order(stamped[1]) > _in_order(self._last):  # the cluster knows the second only, from which on
                self._last = stamped[1]
                yield stamped[2]


def _in_order(stamp: bytes) -> bytes:
    """Return a point in time so that a later one is more: trailing zeros of its fraction are left out as it is told."""
    whole, _, fraction = stamp.rstrip(b"Z").partition(b".")
    return whole + b"." + fraction.ljust(9, b"0")
