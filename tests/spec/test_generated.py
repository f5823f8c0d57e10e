"""Generated files are what the generator makes now, and `check` says when they are not."""

import shutil
from pathlib import Path

import pytest

from harp_spec import facts, gen


def test_committed_files_are_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    status = gen.main(["check"])
    said = capsys.readouterr().out
    assert status == 0, f"run `make generate`:\n{said}"
    assert said == ""


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that has its hand-written sources and nothing generated."""
    for part in ("interposer/src", "softgpu/driver/src", "server/worker/src"):
        shutil.copytree(
            facts.ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("generated")
        )
    monkeypatch.setattr(facts, "ROOT", tmp_path)
    return tmp_path


def test_what_was_written_is_fresh_until_somebody_changes_it(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gen.main(["write"]) == 0
    capsys.readouterr()
    assert gen.main(["check"]) == 0
    assert gen.main(["write"]) == 0
    assert capsys.readouterr().out == ""

    changed = elsewhere / "crates/wire/src/generated/calls.rs"
    changed.write_text(changed.read_text() + "// by hand\n")
    (elsewhere / "interposer/src/generated/extra.rs").write_text("")
    (elsewhere / "docs/coverage.md").unlink()
    assert gen.main(["check"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "stale: crates/wire/src/generated/calls.rs",
        "stale: docs/coverage.md",
        "nothing generates: interposer/src/generated/extra.rs",
    ]


def test_an_export_follows_its_implementation(elsewhere: Path) -> None:
    api = elsewhere / "softgpu/driver/src/api"
    shutil.rmtree(api, ignore_errors=True)
    api.mkdir()
    (api / "stream.rs").write_text(
        "pub unsafe fn cuStreamQuery(stream: CUstream) -> CUresult {\n"
        "pub unsafe fn cuCtxPushCurrent_v2(context: CUcontext) -> CUresult {\n"
    )
    gen.main(["write", "exports"])
    exports = (elsewhere / "softgpu/driver/src/generated/exports.rs").read_text()
    supported, unsupported = exports.split("macro_rules! unsupported")
    assert "crate::api::cuStreamQuery(hStream)" in supported
    assert "crate::api::cuStreamQuery(per_thread(hStream))" in supported
    assert supported.count("crate::api::cuCtxPushCurrent_v2(ctx)") == 2
    assert "cuStreamQuery" not in unsupported.split("static SUPPORTED")[0]
    assert "    cuStreamSynchronize\n" in unsupported


def test_an_unknown_output_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gen.main(["check", "nonsense"])
    assert "no output is named nonsense" in capsys.readouterr().err
