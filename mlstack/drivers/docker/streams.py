"""The terminal or the pipes of this process, carried to and from a command in a container."""

import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

CHUNK = 65536
HANDED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
_STDIN = 0
_HEAD = 8
"""Bytes before each piece of output where there is no terminal: its stream (1 or 2), three zeros, its length."""


def carry(connection: socket.socket, *, terminal: bool, on_signal: Callable[[int], None]) -> None:
    """Copy what is typed and what is said until the command has closed its output.

    With `terminal` every key goes to the command as it is pressed, Ctrl-C too. `on_signal` hears of each signal that
    comes to this process meanwhile, and of SIGWINCH first of all, for the size of the window. Raises `BrokenPipeError`
    when nobody reads our output any more.
    """
    sys.stdout.flush()
    connection.settimeout(0)
    with _signals() as heard, _raw(on=terminal):
        if terminal:
            on_signal(signal.SIGWINCH)
        _Copying(connection, heard, terminal=terminal, on_signal=on_signal).run()


class _Copying:
    def __init__(
        self, connection: socket.socket, heard: int, *, terminal: bool, on_signal: Callable[[int], None]
    ) -> None:
        self._connection, self._heard, self._on_signal = connection, heard, on_signal
        self._terminal = terminal
        self._listening = True
        self._to_send = b""
        self._received = b""

    def run(self) -> None:
        while True:
            ready = self._wait()
            if self._heard in ready:
                for number in os.read(self._heard, 512):
                    self._on_signal(number)
            if self._to_send and ready.get(self._connection.fileno(), 0) & select.POLLOUT:
                self._send()
            if ready.get(self._connection.fileno(), 0) & ~select.POLLOUT and not self._receive():
                return
            if _STDIN in ready:
                self._read()

    def _wait(self) -> dict[int, int]:
        """Wait for something to do. No more is read from standard input than the command takes."""
        poll = select.poll()
        poll.register(self._heard, select.POLLIN)
        poll.register(self._connection, select.POLLIN | (select.POLLOUT if self._to_send else 0))
        if self._listening and not self._to_send:
            poll.register(_STDIN, select.POLLIN)
        return dict(poll.poll())

    def _read(self) -> None:
        try:
            self._to_send = os.read(_STDIN, CHUNK)
        except OSError:  # closed, or a terminal that has gone
            self._to_send = b""
        if not self._to_send:
            self._listening = False
            if not self._terminal:
                with suppress(OSError):  # the command has ended
                    self._connection.shutdown(socket.SHUT_WR)

    def _send(self) -> None:
        try:
            self._to_send = self._to_send[self._connection.send(self._to_send) :]
        except BlockingIOError:
            return
        except ConnectionError:  # the command has ended; what it said may still come
            self._to_send, self._listening = b"", False

    def _receive(self) -> bool:
        """Write what the command says; False at its end."""
        try:
            data = self._connection.recv(CHUNK)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        if self._terminal:
            _write(sys.stdout.fileno(), data)
        else:
            self._received += data
            self._write_pieces()
        return bool(data)

    def _write_pieces(self) -> None:
        while len(self._received) >= _HEAD:
            end = _HEAD + int.from_bytes(self._received[4:_HEAD], "big")
            if len(self._received) < end:
                return
            stream = sys.stderr if self._received[0] == 2 else sys.stdout
            _write(stream.fileno(), self._received[_HEAD:end])
            self._received = self._received[end:]


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


@contextmanager
def _signals() -> Iterator[int]:
    """Turn signals into bytes that can be polled; yield where they are read."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def noted(_number: int, _frame: FrameType | None) -> None:
        """Do nothing: the pipe has its number."""

    before = {number: signal.signal(number, noted) for number in (*HANDED_ON, signal.SIGWINCH)}
    woken_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(woken_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


@contextmanager
def _raw(*, on: bool) -> Iterator[None]:
    """Hand every key on as it is: what Ctrl-C means is decided by the terminal in the container."""
    if not on:
        yield
        return
    before = termios.tcgetattr(_STDIN)
    try:
        tty.setraw(_STDIN, termios.TCSADRAIN)
        yield
    finally:
        with suppress(termios.error):  # a terminal that has gone
            termios.tcsetattr(_STDIN, termios.TCSADRAIN, before)
