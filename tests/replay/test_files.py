"""`harp-replay` on traces that were recorded: files in, files out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from harp_client import native
from harp_replay.cli import harp_replay
from replay.made import small
from replay.test_export import seen

Look = Callable[..., Any]

GOLDEN = Path(__file__).parent / "golden" / "v1"
FOLDER = GOLDEN / "vector_add.htrace"
PACKED = GOLDEN / "vector_add.tar.htrace"


def test_a_trace_is_converted_to_lines_and_back(look: Look, tmp_path: Path) -> None:
    lines, again = tmp_path / "lines.jsonl", tmp_path / "again.htrace"
    assert look("convert", FOLDER, "-o", lines).status == 0
    types = [json.loads(line)["type"] for line in lines.read_text().splitlines()]
    assert (types[0], types[-1]) == ("define", "trace")
    assert look("convert", lines, "-o", again).status == 0
    assert look("diff", FOLDER, again).out == "no difference\n"
    assert look("verify", again).status == 0
    # What reads traces reads lines too.
    stats = look("stats", FOLDER, "--format", "json").out
    assert look("stats", lines, "--format", "json").out == stats


def test_short_lines_go_to_standard_output() -> None:
    command = [sys.executable, "-m", "harp_replay.cli", "convert", FOLDER, "--short", "-o", "-"]
    ended = subprocess.run(command, capture_output=True, check=True)
    types = [json.loads(line)["type"] for line in ended.stdout.splitlines()]
    assert types[-1] == "trace"


def test_lines_that_make_no_trace_leave_none(look: Look, tmp_path: Path) -> None:
    lines, out = tmp_path / "lines.jsonl", tmp_path / "out.htrace"
    lines.write_text('{"type":"enter"}\n')
    ended = look("convert", lines, "-o", out)
    assert ended.status == 2
    assert ended.err.startswith(f"harp-replay: {lines}, ")
    assert ended.err.count("\n") == 1
    assert not out.exists()


WRITERS = (
    ("convert", "--short"),
    ("convert",),
    ("export", "--chrome"),
    ("export", "--perfetto"),
    ("report",),
    ("stats",),
)


@pytest.mark.parametrize("before", [None, "of yesterday"])
@pytest.mark.parametrize("words", WRITERS, ids=" ".join)
def test_a_reader_that_fails_in_the_end_leaves_the_output_as_it_was(
    look: Look,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: tuple[str, ...],
    before: str | None,
) -> None:
    program, lines = tmp_path / "harp-trace", tmp_path / "whole.jsonl"
    small().write(lines)
    program.write_text(f"#!/bin/sh\ncat '{lines}'\necho 'harp-trace: it is cut off' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(native, "find", lambda: SimpleNamespace(trace=str(program)))
    folder = tmp_path / "out"
    folder.mkdir()
    out = folder / "file"
    if before is not None:
        out.write_text(before)
    ended = look(words[0], FOLDER, *words[1:], "-o", out)
    assert (ended.status, ended.err.count("\n")) == (2, 1), ended
    assert [path.read_text() for path in folder.iterdir()] == ([before] if before else [])


def test_a_good_trace_is_said_to_be(look: Look) -> None:
    ended = look("verify", FOLDER)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.endswith("4 contents: whole, no problems\n")


def test_a_damaged_trace_is_told_with_what_is_wrong(look: Look, tmp_path: Path) -> None:
    damaged = shutil.copytree(FOLDER, tmp_path / "damaged.htrace")
    blob = next(path for path in (damaged / "blobs").rglob("*") if path.is_file())
    blob.write_bytes(b"x" + blob.read_bytes()[1:])
    ended = look("verify", damaged)
    assert ended.status == 1
    assert blob.name in ended.out
    assert "1 problem\n" in ended.out
    assert json.loads(look("verify", damaged, "--json").out)["found"] == 1
    calls = damaged / "calls.zst"
    content = bytearray(calls.read_bytes())
    content[len(content) // 2] ^= 1
    calls.write_bytes(content)
    for words in (("info",), ("stats",), ("report", "-o", tmp_path / "r.html")):
        ended = look(words[0], damaged, *words[1:])
        assert ended.status == 2, ended
        assert ended.err.startswith("harp-replay: calls.zst at byte 0: ")
        assert ended.err.count("\n") == 1
    assert not list(tmp_path.glob("r.html*"))


@pytest.mark.parametrize(
    "words",
    [("info",), ("stats",), ("predict",), ("verify",), ("trim", "--kernel", "add", "-o", "OUT")],
    ids=lambda words: words[0],
)
def test_a_reader_that_is_killed_in_the_middle_of_a_line_is_told(
    look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...]
) -> None:
    program = tmp_path / "harp-trace"
    first = small().lines[0]
    program.write_text(
        f"#!/bin/sh\necho '{json.dumps(first)}'\nprintf '{{\"type\":\"pro'\nkill -KILL $$\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(native, "find", lambda: SimpleNamespace(trace=str(program)))
    ended = look(words[0], FOLDER, *words[1:])
    told = "harp-replay: harp-trace was ended by signal 9. Next: see what the system says\n"
    assert (ended.status, ended.out, ended.err) == (6, "", told)


@pytest.mark.parametrize("status", [1, 101])
@pytest.mark.parametrize(
    "words",
    [("info",), ("verify",), ("trim", "--kernel", "add", "-o", "OUT")],
    ids=lambda words: words[0],
)
def test_a_reader_that_fails_and_says_nothing_is_told(
    look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], status: int
) -> None:
    program = tmp_path / "harp-trace"
    program.write_text(f"#!/bin/sh\nexit {status}\n")
    program.chmod(0o755)
    monkeypatch.setattr(native, "find", lambda: SimpleNamespace(trace=str(program)))
    ended = look(words[0], FOLDER, *words[1:])
    assert (ended.status, ended.out) == (6, "")
    assert f"harp-trace ended with status {status} and said nothing. Next: " in ended.err
    assert ended.err.count("\n") == 1


def test_a_trace_is_packed_and_unpacked(look: Look, tmp_path: Path) -> None:
    packed, folder = tmp_path / "packed.htrace", tmp_path / "folder.htrace"
    ended = look("repack", FOLDER, "--tar", "-o", packed)
    assert ended.status == 0
    assert "15 calls" in ended.out
    assert packed.is_file()
    assert look("repack", packed, "--folder", "-o", folder).status == 0
    assert folder.is_dir()
    assert look("diff", FOLDER, folder).status == 0
    ended = look("repack", FOLDER, "-o", folder)
    assert ended.status == 2
    assert str(folder) in ended.err


def test_a_recorded_trace_is_looked_at(look: Look, tmp_path: Path) -> None:
    found = json.loads(look("info", PACKED, "--json").out)
    assert found["kernels"] == {"add": 1}
    assert found["payloads"]["by_policy"] == {"full": 4}
    assert found["moved_bytes"]["[CUDA memcpy Host-to-Device]"] == 8000
    assert found["sent_bytes"] > 8000
    assert found["blobs"]["count"] == 4
    assert found["unsupported"] == {}
    out = tmp_path / "out.pftrace"
    assert look("export", PACKED, "-o", out).status == 0
    timeline = seen(out)
    (launch,) = timeline.named("cuLaunchKernel")
    assert launch.ended is not None
    assert [each.name for each in timeline.slices if each.parent is launch] == ["add"]
    page = tmp_path / "out.html"
    assert look("report", PACKED, "-o", page).status == 0
    assert "<td class=name>add" in page.read_text()
    told = look("predict", "--rtt", "30ms", PACKED)
    assert (told.status, told.err) == (0, "")


@pytest.mark.parametrize("name", harp_replay.list_commands(click.Context(harp_replay)))
def test_help_has_examples_of_the_command(name: str) -> None:
    context = click.Context(harp_replay)
    command = harp_replay.get_command(context, name)
    assert command is not None
    text = command.get_help(click.Context(command, info_name=f"harp-replay {name}"))
    _, heading, examples = text.partition("Examples:\n")
    assert heading, text
    assert f"harp-replay {name}" in " ".join(examples.split("\n\n")[0].split())
