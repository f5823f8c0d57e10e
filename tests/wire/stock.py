"""A stock gRPC client of the data path, as somebody would write it from the .proto alone."""

from __future__ import annotations

import queue
from pathlib import Path

import grpc

SERVER_NAME = "harp-server"
UNLIMITED = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]


def channel(pool: Path, address: str, options=(), name: str = SERVER_NAME) -> grpc.Channel:
    """A channel with the client's credentials in the folder `pool`, to a server of this name."""
    credentials = grpc.ssl_channel_credentials(
        (pool / "ca.pem").read_bytes(),
        (pool / "client.key").read_bytes(),
        (pool / "client.pem").read_bytes(),
    )
    named = [("grpc.ssl_target_name_override", name)]
    return grpc.secure_channel(address, credentials, [*UNLIMITED, *named, *options])


SECONDS = 60.0
"""Longest that a session may last."""


class Session:
    """A session as a stock client sees it: frames out, frames in, both counted."""

    def __init__(self, stubs, major=1, minor=0):
        self.messages, self.services = stubs
        self.version = self.messages.Version(major=major, minor=minor)
        self.sent = 0
        self.received = 0
        self.outgoing = queue.SimpleQueue()

    def begin(self, channel):
        """Opens it; itself."""
        self._call(channel)
        self.send(hello=self.hello())
        return self

    def _call(self, channel):
        self.outgoing = queue.SimpleQueue()
        self.incoming = self.services.SessionStub(channel).Open(
            iter(self.outgoing.get, None), timeout=SECONDS
        )

    def hello(self, **fields):
        return self.messages.Hello(version=self.version, pid=1, program="stock", **fields)

    def send(self, ack=None, **body):
        """Sends the next frame. It acknowledges what has been received, if not less."""
        self.sent += 1
        ack = self.received if ack is None else ack
        self.outgoing.put(self.messages.ClientFrame(seq=self.sent, ack=ack, **body))

    def receive(self):
        frame = next(self.incoming)
        self.received += 1
        assert frame.seq == self.received
        assert frame.ack <= self.sent
        return frame

    def resume(self, channel, session, token, number=0):
        """Asks on a new call to go on after the last frame that was received; the greeting that
        comes."""
        resume = self.messages.Resume(session=session, token=token)
        return self.greet(channel, number, self.hello(resume=resume))

    def greet(self, channel, number, hello):
        """Sends a hello with this number on a new call; what comes back."""
        self.finish()
        self._call(channel)
        self.outgoing.put(self.messages.ClientFrame(seq=number, ack=self.received, hello=hello))
        return next(self.incoming)

    def finish(self):
        self.outgoing.put(None)
