"""The committed facts hang together, within a release and from one to the next."""

from itertools import pairwise

import pytest

from harp_spec import facts, rust
from harp_spec.spec.error_strings import ERROR_STRINGS

RELEASES = [facts.load(name) for name in facts.releases()]
PAIRS = list(pairwise(RELEASES))


#: Names that CUDA 12 gave to new numbers (the old ones became ..._V1), and a mask that grew.
RENUMBERED = {
    "CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS",
    "CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR",
    "CU_COREDUMP_LIGHTWEIGHT_FLAGS",
}


def of(release: facts.Release) -> str:
    return release.version


@pytest.mark.parametrize("release", RELEASES, ids=of)
def test_a_release_states_its_own_version(release: facts.Release) -> None:
    major, minor = map(int, release.version.split("."))
    assert release.constants["CUDA_VERSION"] == major * 1000 + minor * 10


@pytest.mark.parametrize("release", RELEASES, ids=of)
def test_every_type_of_a_signature_or_record_is_known(release: facts.Release) -> None:
    known = {*rust.SCALARS, *release.enums, *release.handles, *release.aliases}
    known |= {*release.callbacks, *release.structs}
    used = {c_type for f in release.functions.values() for _, c_type in f.params}
    used |= {field.type for record in release.structs.values() for field in record.fields}
    bases = {c_type.split("*")[0].split("[")[0].removeprefix("const ").strip() for c_type in used}
    assert bases - known == set()


@pytest.mark.parametrize("release", RELEASES, ids=of)
def test_fields_lie_within_their_record(release: facts.Release) -> None:
    for record in release.structs.values():
        offsets = [field.offset for field in record.fields]
        assert record.size % record.align == 0, record.name
        assert all(offset < record.size for offset in offsets), record.name
        assert offsets == sorted(offsets), record.name
        if record.kind == "union":
            assert set(offsets) == {0}, record.name


def test_layouts_that_programs_were_compiled_with() -> None:
    structs = facts.newest().structs
    sizes = {
        "CUuuid": 16,
        "CUDA_MEMCPY2D_v2": 128,
        "CUDA_MEMCPY3D_v2": 200,
        "CUlaunchConfig": 56,
        "CUlaunchAttribute": 72,
        "CUipcMemHandle_v1": 64,
        "CUtensorMap": 128,
    }
    assert {name: structs[name].size for name in sizes} == sizes
    offsets = {field.name: field.offset for field in structs["CUlaunchConfig"].fields}
    assert (offsets["hStream"], offsets["attrs"], offsets["numAttrs"]) == (32, 40, 48)


@pytest.mark.parametrize(("older", "newer"), PAIRS, ids=lambda release: release.version)
def test_no_export_disappears_or_changes(older: facts.Release, newer: facts.Release) -> None:
    assert set(older.functions) - set(newer.functions) == set()
    for name, function in older.functions.items():
        before = [rust.resolve(c_type, older.aliases) for _, c_type in function.params]
        after = [rust.resolve(c_type, newer.aliases) for _, c_type in newer.functions[name].params]
        assert len(before) == len(after), name
        assert [("*" in t, t in older.handles) for t in before] == [
            ("*" in t, t in newer.handles) for t in after
        ], name


@pytest.mark.parametrize(("older", "newer"), PAIRS, ids=lambda release: release.version)
def test_no_enumerator_is_renumbered(older: facts.Release, newer: facts.Release) -> None:
    def numbers(release: facts.Release) -> dict[str, int]:
        return {name: n for values in release.enums.values() for name, n in values.items()}

    before, after = numbers(older), numbers(newer)
    changed = {n for n in before.keys() & after.keys() if before[n] != after[n]}
    assert {n for n in changed if not n.endswith(("_MAX", "_NUM_OPTIONS", "_MASK"))} <= RENUMBERED


def test_every_error_has_a_text_and_no_text_is_without_one() -> None:
    assert set(facts.newest().enums["CUresult"].values()) == set(ERROR_STRINGS)


def test_the_default_names_lead_to_exports() -> None:
    for release in RELEASES:
        assert set(release.defaults.values()) <= set(release.functions)
        assert release.defaults["cuMemAlloc"] == "cuMemAlloc_v2"
