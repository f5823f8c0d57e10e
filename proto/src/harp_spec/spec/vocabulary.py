"""The words that spec entries are written with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harp_spec import facts
from harp_spec.codecs import Codec
from harp_spec.model import (
    REGISTRY,
    Absent,
    Argument,
    Because,
    Call,
    Create,
    Custom,
    Data,
    Device,
    Launchable,
    Length,
    Out,
    Param,
    Pitch,
    Role,
    SpecError,
    Stream,
    Sync,
    Text,
    Use,
    Value,
    argument,
    check_call,
    number_codec,
    pointee,
)
from harp_spec.spec.handles import KINDS

__all__ = [
    "ABSENT",
    "ALLOCATION",
    "CACHED",
    "CHOSEN",
    "DATA",
    "FIRST_USE",
    "FREE",
    "LENGTH",
    "LIFE",
    "LOCAL",
    "ONE_WAY",
    "OUT",
    "QUERY",
    "REPLY",
    "SETTING",
    "SHARED",
    "STREAM",
    "SYNCHRONISE",
    "TEXT",
    "VALUE",
    "Area",
    "Create",
    "Custom",
    "Data",
    "Device",
    "Launchable",
    "Out",
    "Pitch",
    "Use",
    "Value",
]

LOCAL, ONE_WAY, REPLY = Sync.LOCAL, Sync.ONE_WAY, Sync.REPLY

DATA, SYNCHRONISE = Because.DATA, Because.SYNCHRONISE
QUERY, CHOSEN, SETTING = Because.QUERY, Because.CHOSEN, Because.SETTING
ALLOCATION, FREE, SHARED = Because.ALLOCATION, Because.FREE, Because.SHARED
CACHED = Because.CACHED
FIRST_USE, LIFE = Because.FIRST_USE, Because.LIFE

VALUE = Value()
STREAM = Stream()
TEXT = Text()
OUT = Out()
LENGTH = Length()
ABSENT = Absent()


class Area:
    """Declares the calls of one part of the API, with ids from one block of 256."""

    def __init__(self, name: str, first_id: int) -> None:
        self.name = name
        self.ids = range(first_id, first_id + 0x100)

    def call(
        self,
        name: str,
        id: int,
        sync: Sync,
        args: Mapping[str, Role],
        *,
        carries: Mapping[str, Role] | None = None,
        **policy: Any,
    ) -> None:
        """A call whose wire form follows from its C parameters and their roles."""
        function = self.function(name)
        declared = [parameter for parameter, _ in function.params]
        if list(args) != declared:
            raise SpecError(f"{name} has the parameters {declared}, the spec says {list(args)}")
        before = tuple(Param(key, handle_type(role), role) for key, role in (carries or {}).items())
        custom_client = policy.get("client") is not None
        params = tuple(
            Param(key, self.handed_type(c_type, args[key], custom_client), args[key])
            for key, c_type in function.params
        )
        inputs = [argument(param, name) for param in (*before, *params)]
        outputs = [
            Argument(param.name, output_codec(param))
            for param in params
            if isinstance(param.role, Out)
        ]
        self.register(
            Call(
                name,
                self.name,
                sync,
                self.checked_id(name, id),
                derived=True,
                params=params,
                inputs=tuple(item for item in inputs if item),
                outputs=tuple(outputs),
                carries=before,
                **policy,
            )
        )

    def wire(
        self,
        name: str,
        id: int,
        sync: Sync,
        args: Mapping[str, Codec],
        reply: Mapping[str, Codec] | None = None,
        **policy: Any,
    ) -> None:
        """A call whose wire form is declared by hand, as both of its sides are written."""
        if not name.startswith("harp_"):
            self.function(name)
        for side in ("client", "server"):
            if not isinstance(policy.get(side), Custom):
                raise SpecError(f"{name}: say why its {side} side is hand-written")
        self.register(
            Call(
                name,
                self.name,
                sync,
                self.checked_id(name, id),
                inputs=tuple(Argument(key, codec) for key, codec in args.items()),
                outputs=tuple(Argument(key, codec) for key, codec in (reply or {}).items()),
                **policy,
            )
        )

    def via(self, name: str, sync: Sync, *carriers: str, reason: str = "") -> None:
        """A call that the client makes out of others."""
        self.function(name)
        client = Custom(reason or f"travels as {', '.join(carriers)}")
        self.register(Call(name, self.name, sync, via=carriers, client=client))

    def on_default_stream(self, name: str, stream_form: str, client: Custom | None = None) -> None:
        """A call without a stream: its stream-taking form on the caller's default stream.

        For calls that return before the device has worked, as all of these do on device memory.
        """
        self.function(name)
        self.register(Call(name, self.name, ONE_WAY, on_default_stream=stream_form, client=client))

    def local(self, source: str, *names: str) -> None:
        """Calls that the client answers by itself; ``source`` says from what."""
        for name in names:
            self.function(name)
            self.register(Call(name, self.name, Sync.LOCAL, client=Custom(source), source=source))

    @staticmethod
    def function(name: str) -> facts.Function:
        function = facts.newest().functions.get(name)
        if function is None:
            raise SpecError(f"no header declares {name}")
        return function

    def checked_id(self, name: str, id: int) -> int:
        if id not in self.ids:
            raise SpecError(f"{name}: {id:#06x} is outside of the ids of {self.name}")
        return id

    def register(self, call: Call) -> None:
        check_call(call)
        REGISTRY.add(call)

    @staticmethod
    def handed_type(c_type: str, role: Role, custom_client: bool) -> str:
        """A hand-written client makes new handles itself and hands them to the forward by value."""
        if isinstance(role, Create) and custom_client:
            return pointee(c_type)
        return c_type


def handle_type(role: Role) -> str:
    if not isinstance(role, Use | Create):
        raise SpecError("only handles are carried beside the C parameters")
    return KINDS[role.kind].c_type


def output_codec(param: Param) -> Codec:
    return number_codec(pointee(param.c_type))
