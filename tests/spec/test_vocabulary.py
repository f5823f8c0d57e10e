"""A spec entry that contradicts the facts, or itself, is refused when it is read."""

import pytest

from harp_spec.codecs import DEVICE_POINTER, U64, handle
from harp_spec.model import Because, Registry, SpecError, length_in_rust
from harp_spec.spec import vocabulary
from harp_spec.spec.vocabulary import (
    LENGTH,
    ONE_WAY,
    OUT,
    QUERY,
    REPLY,
    STREAM,
    VALUE,
    Area,
    Create,
    Custom,
    Data,
    Device,
    Use,
    Value,
)


@pytest.fixture
def area(monkeypatch: pytest.MonkeyPatch) -> Area:
    monkeypatch.setattr(vocabulary, "REGISTRY", Registry())
    return Area("test", 0x7F00)


MEMSET = {"dstDevice": Device(writes="N * 4"), "ui": VALUE, "N": VALUE, "hStream": STREAM}
ERRORS = ("INVALID_VALUE", "INVALID_CONTEXT", "INVALID_HANDLE")


def declare_memset(area: Area, **changes) -> None:
    args = {**MEMSET, **changes.pop("args", {})}
    args = {name: role for name, role in args.items() if role is not None}
    options = {"predicts": ERRORS, "needs_context": False, **changes}
    area.call("cuMemsetD32Async", 0x7F01, ONE_WAY, args, **options)


def test_an_entry_that_fits_is_taken(area: Area) -> None:
    declare_memset(area)
    call = vocabulary.REGISTRY.calls["cuMemsetD32Async"]
    assert [item.name for item in call.inputs] == ["dstDevice", "ui", "N", "hStream"]
    assert [item.codec.name for item in call.inputs] == ["device_pointer", "u32", "u64", "stream"]
    assert call.outputs == ()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"args": {"ui": None}}, "has the parameters"),
        ({"args": {"extra": VALUE}}, "has the parameters"),
        ({"args": {"dstDevice": Device(writes="M * 4")}}, r"no parameter \['M'\]"),
        ({"args": {"dstDevice": Device(writes="N / 4")}}, "is not a length"),
        ({"args": {"dstDevice": Use("Event")}}, "its role wants CUevent"),
        ({"args": {"hStream": Use("Event")}}, "its role wants CUevent"),
        ({"args": {"N": Device()}}, "its role wants CUdeviceptr"),
        ({"args": {"N": LENGTH}}, "not paired"),
        ({"predicts": ()}, "which errors the client predicts"),
        ({"predicts": ("INVALID_VALUE",)}, "before it is sent"),
        ({"predicts": (*ERRORS, "NO_SUCH_CODE")}, "does not exist"),
        ({"needs_context": True, "predicts": ("INVALID_VALUE",)}, "before it is sent"),
    ],
)
def test_an_entry_that_does_not_fit_is_refused(area: Area, changes, complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        declare_memset(area, **changes)


def test_a_name_that_no_header_declares_is_refused(area: Area) -> None:
    with pytest.raises(SpecError, match="no header declares cuNothing"):
        area.call("cuNothing", 0x7F01, REPLY, {})


def test_a_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no handle kind is called Elephant"):
        handle("Elephant")


def test_ids_belong_to_their_area_and_to_one_call(area: Area) -> None:
    with pytest.raises(SpecError, match="outside of the ids"):
        area.call("cuProfilerStart", 0x0101, REPLY, {}, because=QUERY)
    area.call("cuProfilerStart", 0x7F01, REPLY, {}, because=QUERY)
    with pytest.raises(SpecError, match="declared twice"):
        area.call("cuProfilerStart", 0x7F02, REPLY, {}, because=QUERY)
    area.call("cuProfilerStop", 0x7F01, REPLY, {}, because=QUERY)
    with pytest.raises(SpecError, match="share the wire id"):
        vocabulary.REGISTRY.check()


def test_a_reply_says_why_a_program_waits_for_it(area: Area) -> None:
    with pytest.raises(SpecError, match="say why a program waits"):
        area.call("cuProfilerStart", 0x7F01, REPLY, {})
    with pytest.raises(SpecError, match="NETWORK is no call's own reason"):
        area.call("cuProfilerStart", 0x7F01, REPLY, {}, because=Because.NETWORK)


def test_a_one_way_call_has_no_outputs(area: Area) -> None:
    with pytest.raises(SpecError, match="has outputs"):
        area.call(
            "cuCtxGetLimit",
            0x7F01,
            ONE_WAY,
            {"pvalue": OUT, "limit": VALUE},
            predicts=ERRORS,
        )


def test_hand_written_sides_say_why(area: Area) -> None:
    with pytest.raises(SpecError, match="say why its server side is hand-written"):
        area.wire("cuMemFree_v2", 0x7F01, REPLY, {"dptr": DEVICE_POINTER}, client=Custom("x"))
    with pytest.raises(SpecError, match="say why its client side is hand-written"):
        area.wire("harp_x", 0x7F01, REPLY, {"x": U64}, server=Custom("x"))


def test_a_call_travels_by_calls_that_exist(area: Area) -> None:
    area.via("cuMemcpy", REPLY, "cuMemcpyHtoD_v2")
    with pytest.raises(SpecError, match="cuMemcpyHtoD_v2 does not travel"):
        vocabulary.REGISTRY.check()


def test_a_stream_form_differs_in_the_stream_only(area: Area) -> None:
    declare_memset(area)
    area.on_default_stream("cuMemsetD16_v2", "cuMemsetD32Async")
    with pytest.raises(SpecError, match="differ in more than the stream"):
        vocabulary.REGISTRY.check()


def test_flags_and_creates_bring_their_errors(area: Area) -> None:
    args = {"phEvent": Create("Event"), "Flags": Value(allowed="CU_EVENT_BLOCKING_SYNC")}
    with pytest.raises(SpecError, match=r"\['INVALID_VALUE'\] before it is sent"):
        area.call("cuEventCreate", 0x7F01, ONE_WAY, args, predicts=("INVALID_CONTEXT",))


def test_data_is_bytes_with_a_length(area: Area) -> None:
    with pytest.raises(SpecError, match="its role wants const void"):
        declare_memset(area, args={"ui": Data("N"), "N": LENGTH})


def test_lengths_are_written_so_that_they_cannot_overflow() -> None:
    assert length_in_rust("N") == "N as u64"
    assert length_in_rust("N * 4") == "(N as u64).saturating_mul(4_u64)"
    assert length_in_rust("p * (h - 1) + w") == (
        "(p as u64).saturating_mul((h as u64).saturating_sub(1_u64)).saturating_add((w as u64))"
    )
