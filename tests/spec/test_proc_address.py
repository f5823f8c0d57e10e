"""The cuGetProcAddress map: complete, and right for every runtime whose questions are known."""

from harp_spec import facts
from harp_spec.outputs.exports import PER_THREAD_TWIN, all_functions

#: Names that runtimes ask for and that no CUDA header declares.
UNDECLARED = {
    "cuGraphInstantiateWithParams_ptsz",
    "cuSubgridCreate",
    "cuSubgridWorkerGridCreate",
    "cuSubgridWorksetCreate",
}


def test_every_export_is_some_answer() -> None:
    answers = [row.symbol for row in facts.proc_addresses()]
    assert set(answers) == set(all_functions())
    assert len(answers) == len(set(answers))


def test_a_twin_is_the_twin_of_an_answer_of_its_base() -> None:
    answers = {(row.base, row.symbol) for row in facts.proc_addresses() if not row.twin}
    for row in facts.proc_addresses():
        if row.twin:
            plain = PER_THREAD_TWIN.fullmatch(row.symbol)
            assert plain is not None
            assert (row.base, plain[1]) in answers


def test_newer_variants_come_with_later_versions() -> None:
    by_base: dict[tuple[str, str], list[facts.ProcAddress]] = {}
    for row in facts.proc_addresses():
        by_base.setdefault((row.base, row.twin), []).append(row)
    for rows in by_base.values():
        numbers = [variant_number(row.symbol) for row in rows]
        assert numbers == sorted(numbers), rows


def variant_number(symbol: str) -> int:
    plain = PER_THREAD_TWIN.fullmatch(symbol)
    name = plain[1] if plain else symbol
    _, found, number = name.rpartition("_v")
    return int(number) if found and number.isdigit() else 1


def test_every_question_of_a_runtime_leads_to_a_declared_export() -> None:
    interop = {name for release in facts.releases() for name in facts.load(release).interop}
    bases = {row.base for row in facts.proc_addresses()}
    asked = set()
    for name, _, _, export, runtimes in facts.read_rows(facts.REQUESTS_PATH):
        asked |= set(runtimes.split(","))
        if export == "-":
            assert name in interop | UNDECLARED
        else:
            assert name in bases
            assert export in all_functions()
    assert {"11.8", "12.0", "12.4", "12.8", "12.9", "13.0", "13.2", "13.4", "13.5"} == asked
