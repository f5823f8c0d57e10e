"""Control channels to the native processes: JSON messages, some with one descriptor attached.

Each channel is one end of a SOCK_SEQPACKET socket pair, so that nothing of it lies in the file
system and a message is never split. The other end is inherited by the child.
"""

import array
import asyncio
import json
import os
import socket
from collections.abc import Callable
from typing import Any

MESSAGE_MAX = 64 * 1024

Message = dict[str, Any]
OnMessage = Callable[[Message, int | None], None]


class Channel:
    """The agent's end. `on_message` gets each message and the descriptor that came with it (which
    it then owns); `on_close` is called once when the other end is gone or talks nonsense."""

    def __init__(self, on_message: OnMessage, on_close: Callable[[str], None]) -> None:
        self._socket, self.child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        """The other end, for a child to inherit; to be closed as soon as that has it."""

        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._on_close = on_close
        self._loop.add_reader(self._socket, self._readable)

    def send(self, message: Message, descriptor: int | None = None) -> None:
        """Sends one message. Raises OSError when the other end is gone or takes nothing more."""
        data = json.dumps(message).encode() + b"\n"
        if descriptor is None:
            self._socket.send(data)
        else:
            socket.send_fds(self._socket, [data], [descriptor])

    def drain(self) -> None:
        """Takes what the other end had still said before it ended, then closes."""
        while self._socket.fileno() >= 0:
            try:
                self._socket.recv(1, socket.MSG_PEEK)
            except ConnectionResetError:
                continue  # it ended without having read all; what it had said comes after this
            except OSError:
                break
            self._readable()
        self.close()

    def close(self) -> None:
        """Closes this end; `on_close` is not called any more."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _readable(self) -> None:
        try:
            data, descriptors = self._receive()
        except (BlockingIOError, ConnectionResetError):
            return
        except OSError as error:
            self._end(error.strerror or str(error))
            return
        if not data:
            self._end("")
            return
        try:
            # A child may put several events, one a line, into one packet.
            messages = [json.loads(line) for line in data.splitlines() if line.strip()]
            if not all(isinstance(message, dict) for message in messages):
                raise ValueError("not an object")
        except (ValueError, RecursionError) as error:
            for descriptor in descriptors:
                os.close(descriptor)
            self._end(f"unreadable message: {error}")
            return
        for message in messages:
            self._on_message(message, descriptors.pop(0) if descriptors else None)
        for descriptor in descriptors:
            os.close(descriptor)

    def _receive(self) -> tuple[bytes, list[int]]:
        # socket.recv_fds cannot be asked for close-on-exec descriptors, and a session's socket must
        # not leak into a worker that is started at the same moment.
        descriptors = array.array("i")
        data, ancillary, _flags, _address = self._socket.recvmsg(
            MESSAGE_MAX, socket.CMSG_SPACE(4 * descriptors.itemsize), socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
        return data, list(descriptors)

    def _end(self, cause: str) -> None:
        self.close()
        self._on_close(cause)
