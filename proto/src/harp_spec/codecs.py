"""How one value of a call travels, and how it is written in Rust on either side.

A codec knows the type of the value in ``encode_cuX`` (borrowed) and in ``CuXArgs`` (decoded), and
the expressions that move it. ``{v}`` stands for the value.
"""

from __future__ import annotations

from dataclasses import dataclass

from harp_spec.spec.handles import KINDS


@dataclass(frozen=True)
class Codec:
    """A way to travel. ``name`` is what the trace schema calls it."""

    name: str
    #: Rust type of the argument of the encoding function.
    given: str
    #: Rust type of the decoded field.
    decoded: str
    #: Statement that writes the value ``{v}`` to ``e``.
    encode: str
    #: Expression that reads it from ``d``.
    decode: str
    #: The least number of bytes it takes.
    least: int

    def encode_value(self, value: str) -> str:
        return self.encode.format(v=value)


def scalar(rust: str) -> Codec:
    size = int(rust[1:]) // 8
    return Codec(rust, rust, rust, f"e.{rust}({{v}});", f"d.{rust}()", size)


U8, U32, I32, U64, I64, F32 = map(scalar, ("u8", "u32", "i32", "u64", "i64", "f32"))

#: A device address or a range's start.
DEVICE_POINTER = Codec("device_pointer", "u64", "u64", "e.u64({v});", "d.u64()", 8)
BYTES = Codec("bytes", "&[u8]", "&'a [u8]", "e.bytes({v});", "d.bytes()", 8)
#: Bytes at the end of a call, which a client may send straight from where they lie: the encoding
#: function leaves them to its caller.
PAYLOAD = Codec("payload", "", "&'a [u8]", "", "d.bytes()", 8)
TEXT = Codec("text", "&CStr", "&'a CStr", "e.text({v});", "d.text()", 5)
STREAM = Codec("stream", "u64", "u64", "e.u64({v});", "d.stream()", 8)
#: A stream, or u64::MAX where CUDA's call is the synchronous form.
COPY_STREAM = Codec("copy_stream", "u64", "u64", "e.u64({v});", "d.copy_stream()", 8)
FUNCTION_INFO = Codec(
    "function_info", "&FunctionInfo", "FunctionInfo", "{v}.encode(e);", "FunctionInfo::read(d)", 68
)


def handle(*kinds: str) -> Codec:
    """A handle of one of ``kinds``."""
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f"no handle kind is called {', '.join(sorted(unknown))}")
    listed = ", ".join(f"HandleKind::{kind}" for kind in kinds)
    decode = f"d.handle({listed})" if len(kinds) == 1 else f"d.handle_of(&[{listed}])"
    return Codec(f"handle({'|'.join(kinds)})", "u64", "u64", "e.u64({v});", decode, 8)


def handle_or_none(kind: str) -> Codec:
    decode = f"d.handle_or_none(HandleKind::{kind})"
    return Codec(f"handle_or_none({kind})", "u64", "u64", "e.u64({v});", decode, 8)


def array(item: Codec, count: int) -> Codec:
    """Exactly ``count`` numbers."""
    if item.decode != f"d.{item.given}()":
        raise ValueError(f"an array is of numbers, and {item.name} is more than one")
    rust = f"[{item.given}; {count}]"
    encode = f"{{v}}.iter().for_each(|v| e.{item.given}(*v));"
    decode = f"d.{item.given}s()"
    return Codec(f"{item.name}[{count}]", rust, rust, encode, decode, item.least * count)


def sequence(item: Codec) -> Codec:
    """Any number of items."""
    borrowed = item.given.startswith("&")
    inner = item.encode_value("v" if borrowed else "*v").rstrip(";")
    # A C string has no size of its own, so a list of them is a list of references.
    given = item.given if item is TEXT else item.given.removeprefix("&")
    return Codec(
        f"list({item.name})",
        f"&[{given}]",
        f"Vec<{item.decoded}>",
        f"e.list({{v}}, |e, v| {inner});",
        f"d.list({item.least}, |d| {item.decode})",
        4,
    )
