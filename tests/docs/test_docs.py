"""What the documentation names is there: files, targets of make, crates, dependencies."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path

import pytest

from harp_client.native import LAYOUT

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]
PAGES += sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md"))
IGNORED = [line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
FOLDERS = sorted(
    entry.name
    for entry in ROOT.iterdir()
    if entry.is_dir()
    and not entry.name.startswith(".")
    and not any(fnmatch(entry.name, pattern) for pattern in IGNORED)
)
"""The folders that the repository consists of."""

FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w<>*./-]*")


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def code_of(page: str) -> Iterator[str]:
    """Spans and blocks of code. The map of the source is no block of code."""
    text = text_of(page)
    for block in FENCE.findall(text):
        if "──" not in block and "harp/data/v1/" not in block:
            yield block
    yield from SPAN.findall(FENCE.sub("", text))


@pytest.mark.parametrize("page", PAGES)
def test_every_path_exists(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text_of(page))
    missing = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    for code in code_of(page):
        for path in PATH.findall(code):
            # `<area>` stands for names; an installed package has a layout of its own.
            pattern = re.sub(r"<\w+>", "*", path.rstrip("./"))
            if path not in LAYOUT and not any(ROOT.glob(pattern)):
                missing.append(path)
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_every_target_of_make_exists(page: str) -> None:
    makefile = text_of("Makefile")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony
    named = {
        target
        for code in code_of(page)
        for target in re.findall(r"\bmake (?:-C \S+ )?([a-z][a-z-]*)", code)
    }
    assert named <= set(phony[1].split())


@pytest.mark.parametrize("page", PAGES)
def test_every_crate_and_its_tests_exist(page: str) -> None:
    crates = {manifest["package"]["name"]: folder for folder, manifest in manifests()}
    for code in code_of(page):
        for name, rest in re.findall(
            r"cargo \w+(?: --release)? -p (\S+)([^\n]*(?:\n\s+[^\n]*)?)", code
        ):
            assert name in crates
            for test in re.findall(r"--test\s+(\S+)", rest):
                assert any((crates[name] / "tests").glob(f"{test}*")), test


def test_the_map_shows_what_there_is() -> None:
    """Every line of the map is a path, and every crate and folder has a line."""
    block = next(block for block in FENCE.findall(text_of("ARCHITECTURE.md")) if "proto/" in block)
    shown = set()
    above = ""
    for line in block.splitlines()[1:-1]:
        name = line.split()[0].rstrip("/")
        path = f"{above}/{name}" if line.startswith(" ") else name
        assert (ROOT / path).exists(), f"no {path}"
        above = above if line.startswith(" ") else name
        shown |= {path, *map(str, Path(path).parents)}
    members = tomllib.loads(text_of("Cargo.toml"))["workspace"]["members"]
    inside = {member for member in members if not member.startswith(("bench/", "tests/"))}
    assert inside | set(FOLDERS) <= shown


def manifests() -> Iterator[tuple[Path, dict[str, dict[str, object]]]]:
    """The crates of the workspace, and those beside it for fuzzing and generating."""
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("Cargo.toml"):
            yield path.parent, tomllib.loads(path.read_text())


def test_every_dependency_has_its_reason() -> None:
    table = text_of("ARCHITECTURE.md").split("## Dependencies, and why")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    told = {word for row in rows for word in re.findall(r"[\w-]+", row.lower())}
    used = set()
    for _, manifest in manifests():
        for kind in ("dependencies", "dev-dependencies", "build-dependencies"):
            for name, how in manifest.get(kind, {}).items():
                package = how.get("package", name) if isinstance(how, dict) else name
                used.add(str(package))
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    for line in [*project["dependencies"], *chain(*project["optional-dependencies"].values())]:
        used.add(re.split(r"[\[>=<]", line)[0].lower())
    ours = {name for name in used if name.startswith("harp-")}
    assert used - ours - told == set()
