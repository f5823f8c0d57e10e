"""The checked model: one :class:`Call` per reviewed entry of the spec.

``proto/src/harp_spec/spec`` declares calls with the vocabulary below; every declaration is checked
against the facts as it is read, so a wrong parameter name, a missing wire id or an undeclared
length fails the import.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from enum import Enum

from harp_spec import codecs, facts, rust
from harp_spec.codecs import Codec
from harp_spec.spec.handles import KINDS


class Sync(Enum):
    """When a program hears of the outcome."""

    LOCAL = "local"
    ONE_WAY = "one_way"
    REPLY = "reply"


class Because(Enum):
    """Why a program waits for a reply: a name on the wire's side, and the words of a profile."""

    DATA = "the program asked for data"
    SYNCHRONISE = "the program synchronised"
    QUERY = "only the driver knows the answer"
    ALLOCATION = "memory is allocated"
    FREE = "memory is freed, when the device has done its work"
    FIRST_USE = "code is loaded, or used for the first time"
    CHOSEN = "the server chooses a handle, an address or bytes"
    LIFE = "a context begins or ends"
    SETTING = "the driver may refuse the setting"
    SHARED = "kernels share memory with the program"
    CACHED = "the server may have what is to be sent"
    #: Reasons that are not a call's own.
    EVERY_CALL = "HARP_SYNC=1 makes every call wait"
    ORDER = "queued work may change what is copied"
    START_UP = "the session begins"
    NETWORK = "the network takes no more"

    @property
    def asked(self) -> bool:
        """Whether the program itself wants to wait."""
        return self in (Because.DATA, Because.SYNCHRONISE)

    @property
    def of_calls(self) -> bool:
        """Whether a spec entry may give it."""
        return self not in (
            Because.EVERY_CALL,
            Because.ORDER,
            Because.START_UP,
            Because.NETWORK,
        )

    @property
    def pascal(self) -> str:
        return "".join(word.title() for word in self.name.split("_"))


class SpecError(ValueError):
    """A declaration that contradicts the facts or itself."""


@dataclass(frozen=True)
class Role:
    """What one C parameter means."""


@dataclass(frozen=True)
class Value(Role):
    """A number that is passed on. ``allowed``: the bits that a flags word may have."""

    allowed: str | None = None


@dataclass(frozen=True)
class Pitch(Value):
    """Bytes from one of ``rows`` to the next: elements of ``unit`` bytes, ``row`` bytes or more."""

    row: str = "0"
    rows: str = "1"
    unit: int = 1


@dataclass(frozen=True)
class Use(Role):
    """A live handle. ``destroys``: it is gone afterwards."""

    kind: str
    destroys: bool = False


@dataclass(frozen=True)
class Launchable(Role):
    """A CUfunction, or a CUkernel that the program passes as one."""


@dataclass(frozen=True)
class Create(Role):
    """An out pointer for a new handle, which the client chooses and the server binds."""

    kind: str


@dataclass(frozen=True)
class Stream(Role):
    """A stream, created or default."""


@dataclass(frozen=True)
class Device(Role):
    """A device address; ``reads`` and ``writes`` are lengths in bytes from there on.

    It must be a multiple of ``aligned`` bytes.
    """

    reads: str | None = None
    writes: str | None = None
    aligned: int = 1


@dataclass(frozen=True)
class Text(Role):
    """A C string that is read."""


@dataclass(frozen=True)
class Data(Role):
    """Host bytes that are read; ``length`` names the parameter with their number."""

    length: str


@dataclass(frozen=True)
class Length(Role):
    """The length of another parameter, which carries it."""


@dataclass(frozen=True)
class Out(Role):
    """A pointer to one number that is written. ``optional``: the program may pass NULL."""

    optional: bool = False


@dataclass(frozen=True)
class Absent(Role):
    """A parameter that must be NULL or 0, and is passed as that."""


@dataclass(frozen=True)
class Custom:
    """Hand-written code, and why the generator cannot write it."""

    reason: str


@dataclass(frozen=True)
class Param:
    """A C parameter with its role."""

    name: str
    c_type: str
    role: Role


@dataclass(frozen=True)
class Argument:
    """A value on the wire, in a call or in its reply."""

    name: str
    codec: Codec


@dataclass(frozen=True)
class Call:
    """One reviewed call."""

    name: str
    area: str
    sync: Sync
    #: Position on the wire; None for a call that never travels under its own name.
    id: int | None = None
    #: Whether the wire form follows from the C parameters; else it is declared by hand.
    derived: bool = False
    #: C parameters with roles, of a derived call.
    params: tuple[Param, ...] = ()
    inputs: tuple[Argument, ...] = ()
    outputs: tuple[Argument, ...] = ()
    #: Values that travel before the C parameters and that the driver does not get.
    carries: tuple[Param, ...] = ()
    #: The calls that carry this one.
    via: tuple[str, ...] = ()
    #: The stream-taking call that this one is on the caller's default stream.
    on_default_stream: str | None = None
    client: Custom | None = None
    server: Custom | None = None
    #: The server answers when the device gets there, from a waiter thread.
    waits: bool = False
    #: Why a program waits for the reply; of a one-way call, why it does where that must be.
    because: Because | None = None
    needs_context: bool = True
    #: Codes that CUDA returns synchronously and the client predicts before a one-way call.
    predicts: tuple[str, ...] = ()
    #: What is charged to the session's quota, as (resource, expression).
    charge: tuple[str, str] | None = None
    #: How a trace keeps the call: value, blob (payload by hash) or skip (no effect on replay).
    record: str = "value"
    #: Where a local answer comes from.
    source: str = ""
    notes: str = ""

    @property
    def travels(self) -> bool:
        return self.id is not None

    @property
    def internal(self) -> bool:
        return self.name.startswith("harp_")

    @property
    def has_forward(self) -> bool:
        return self.travels and self.derived

    @property
    def pascal(self) -> str:
        """The stem of the call's Rust types."""
        if self.internal:
            return "".join(word.title() for word in self.name.split("_"))
        return self.name[0].upper() + self.name[1:]

    @property
    def payload(self) -> bool:
        return bool(self.inputs) and self.inputs[-1].codec is codecs.PAYLOAD


@dataclass
class Registry:
    """Every call that has been declared, by name."""

    calls: dict[str, Call] = field(default_factory=dict)

    def add(self, call: Call) -> None:
        if call.name in self.calls:
            raise SpecError(f"{call.name} is declared twice")
        self.calls[call.name] = call

    def wire_calls(self) -> list[Call]:
        """The calls that travel, by wire id."""
        return [call for _, call in sorted(self.by_id())]

    def by_id(self) -> list[tuple[int, Call]]:
        return [(call.id, call) for call in self.calls.values() if call.id is not None]

    def check(self) -> None:
        """Checks that need all declarations."""
        owners: dict[int, str] = {}
        for number, call in self.by_id():
            if other := owners.get(number):
                raise SpecError(f"{call.name} and {other} share the wire id {number:#06x}")
            owners[number] = call.name
        for call in self.calls.values():
            for carrier in call.via:
                if carrier not in self.calls or not self.calls[carrier].travels:
                    raise SpecError(f"{call.name}: {carrier} does not travel")
            if call.on_default_stream:
                self.check_stream_form(call, self.calls.get(call.on_default_stream))

    @staticmethod
    def check_stream_form(call: Call, stream_form: Call | None) -> None:
        functions = facts.newest().functions
        expected = [*functions[call.name].params, ("hStream", "CUstream")]
        if not stream_form or not stream_form.has_forward:
            raise SpecError(f"{call.name}: {call.on_default_stream} has no forward")
        if list(functions[stream_form.name].params) != expected:
            raise SpecError(f"{call.name} and {stream_form.name} differ in more than the stream")


REGISTRY = Registry()

FIXED_CODECS = {
    "u8": codecs.U8,
    "u16": codecs.scalar("u16"),
    "u32": codecs.U32,
    "i32": codecs.I32,
    "u64": codecs.U64,
    "usize": codecs.U64,
    "i64": codecs.I64,
    "f32": codecs.F32,
}


def number_codec(c_type: str) -> Codec:
    """The codec of a C number type, enums and typedefs included."""
    return FIXED_CODECS[number_type(c_type)]


def number_type(c_type: str) -> str:
    """The Rust primitive behind a C number type."""
    release = facts.newest()
    resolved = rust.resolve(c_type, release.aliases)
    if resolved in release.enums:
        return "i32" if min(release.enums[resolved].values(), default=0) < 0 else "u32"
    primitive = rust.SCALARS.get(resolved)
    if primitive not in FIXED_CODECS:
        raise SpecError(f"{c_type} is not a number")
    return primitive


def pointee(c_type: str) -> str:
    if not c_type.endswith("*"):
        raise SpecError(f"{c_type} is not a pointer")
    return c_type[:-1].strip()


def argument(param: Param, owner: str) -> Argument | None:
    """The wire argument of an input parameter; None for one that does not travel."""
    match param.role:
        case Value():
            return Argument(param.name, number_codec(param.c_type))
        case Use(kind) | Create(kind):
            return Argument(param.name, codecs.handle(kind))
        case Launchable():
            return Argument(param.name, codecs.handle("Function", "Kernel"))
        case Stream():
            return Argument(param.name, codecs.STREAM)
        case Device():
            return Argument(param.name, codecs.DEVICE_POINTER)
        case Text():
            return Argument(param.name, codecs.TEXT)
        case Data():
            return Argument(param.name, codecs.BYTES)
        case Length() | Absent() | Out():
            return None
    raise SpecError(f"{owner}.{param.name}: {param.role} cannot be passed")


def check_role(param: Param, owner: str) -> None:
    """The role must fit the C type."""
    match param.role:
        case Use(kind) if param.c_type != KINDS[kind].c_type:
            expected = KINDS[kind].c_type
        case Create(kind) if param.c_type not in (KINDS[kind].c_type + " *", KINDS[kind].c_type):
            expected = KINDS[kind].c_type + " *"
        case Launchable() if param.c_type != "CUfunction":
            expected = "CUfunction"
        case Stream() if param.c_type != "CUstream":
            expected = "CUstream"
        case Device() if param.c_type != "CUdeviceptr":
            expected = "CUdeviceptr"
        case Text() if param.c_type != "const char *":
            expected = "const char *"
        case Data() if param.c_type != "const void *":
            expected = "const void *"
        case _:
            return
    raise SpecError(f"{owner}.{param.name} is {param.c_type}, its role wants {expected}")


NAME = re.compile(r"[A-Za-z_]\w*")


def length_in_rust(expression: str) -> str:
    """A length expression over parameters as a Rust u64 that cannot overflow."""

    def render(node: ast.expr) -> str:
        match node:
            case ast.BinOp(left, ast.Mult(), right):
                return f"{render(left)}.saturating_mul({render(right)})"
            case ast.BinOp(left, ast.Add(), right):
                return f"{render(left)}.saturating_add({render(right)})"
            case ast.BinOp(left, ast.Sub(), right):
                return f"{render(left)}.saturating_sub({render(right)})"
            case ast.Name(name):
                return f"({rust.identifier(name)} as u64)"
            case ast.Constant(int(number)):
                return f"{number}_u64"
        raise SpecError(f"{expression!r} is not a length")

    written = render(ast.parse(expression, mode="eval").body)
    return written[1:-1] if NAME.fullmatch(expression) else written


def lengths_of(param: Param) -> list[str]:
    match param.role:
        case Device(reads, writes):
            return [expression for expression in (reads, writes) if expression]
        case Data(length):
            return [length]
    return []


def check_call(call: Call) -> None:
    """Checks one declaration against the facts and against itself."""
    if call.derived:
        names = {param.name for param in call.params}
        lengths = {p.name for p in call.params if isinstance(p.role, Length)}
        for param in call.params:
            check_role(param, call.name)
            for expression in lengths_of(param):
                length_in_rust(expression)
                if unknown := set(NAME.findall(expression)) - names:
                    raise SpecError(f"{call.name}.{param.name}: no parameter {sorted(unknown)}")
        carried = {p.role.length for p in call.params if isinstance(p.role, Data)}
        if carried != lengths:
            raise SpecError(f"{call.name}: lengths {sorted(carried ^ lengths)} are not paired")
    if call.sync is Sync.ONE_WAY and call.travels and not call.internal and not call.predicts:
        raise SpecError(f"{call.name} is one-way: say which errors the client predicts")
    known = facts.newest().enums["CUresult"]
    for code in call.predicts:
        if f"CUDA_ERROR_{code}" not in known:
            raise SpecError(f"{call.name}: CUDA_ERROR_{code} does not exist")
    if call.predicts and (missing := implied_errors(call) - set(call.predicts)):
        raise SpecError(f"{call.name} can fail with {sorted(missing)} before it is sent")
    if call.sync is Sync.REPLY and call.travels and not call.because:
        raise SpecError(f"{call.name} is a reply: say why a program waits for it")
    if call.because and not call.because.of_calls:
        raise SpecError(f"{call.name}: {call.because.name} is no call's own reason")
    if call.sync is Sync.ONE_WAY and call.outputs:
        raise SpecError(f"{call.name} is one-way and has outputs")
    if call.sync is Sync.LOCAL and call.travels:
        raise SpecError(f"{call.name} is local and has a wire id")


def implied_errors(call: Call) -> set[str]:
    """The codes that generated client code may return before it sends the call."""
    errors = {"INVALID_CONTEXT"} if call.needs_context and call.derived else set()
    for param in call.params:
        match param.role:
            case Use("Context"):
                errors.add("INVALID_CONTEXT")
            case Stream():
                errors |= {"INVALID_HANDLE", "INVALID_CONTEXT"}
            case Use() | Launchable():
                errors.add("INVALID_HANDLE")
            case Create() if param.c_type.endswith("*") and call.client is None:
                errors.add("INVALID_VALUE")
            case Device(reads, writes) if reads or writes:
                errors.add("INVALID_VALUE")
            case Pitch():
                errors.add("INVALID_VALUE")
            case Value(allowed) if allowed is not None:
                errors.add("INVALID_VALUE")
    return errors
