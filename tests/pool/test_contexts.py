"""`harp context`: the configuration file is changed, and the rest of it stays as it was."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from pool.standins import HARP, environment

BEFORE = """\
# mine
current = "lab" # for now

[contexts.lab]
scheduler = "lab.example:7440"

[contexts.home]
server = "gpu1:7443" # in the cellar
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "config.toml").write_text(BEFORE)
    return environment(tmp_path) | {"HARP_CONFIG": str(tmp_path / "config.toml")}


def context(environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HARP, "context", *words], env=environ, capture_output=True, text=True, timeout=60
    )


def test_contexts_are_listed_with_the_current_one(environ: dict[str, str]) -> None:
    assert context(environ, "list").stdout.splitlines() == [
        "  home                 gpu1:7443",
        "* lab                  lab.example:7440",
    ]
    chosen = json.loads(context(environ | {"HARP_CONTEXT": "home"}, "list", "-o", "json").stdout)
    assert [(c["name"], c["current"]) for c in chosen["items"]] == [("home", True), ("lab", False)]
    assert context(environ, "list", "-o", "name").stdout.split() == ["home", "lab"]


def test_another_one_is_used_and_comments_stay(environ: dict[str, str]) -> None:
    assert context(environ, "use", "home").returncode == 0
    assert Path(environ["HARP_CONFIG"]).read_text() == BEFORE.replace('"lab" #', '"home" #')


def test_one_is_forgotten(environ: dict[str, str]) -> None:
    assert context(environ, "delete", "lab").returncode == 0
    left = Path(environ["HARP_CONFIG"]).read_text()
    assert "lab" not in left
    assert "# in the cellar" in left
    assert context(environ, "list").stdout == "  home                 gpu1:7443\n"
    missing = context(environ, "use", "lab")
    assert missing.returncode == 3
    assert "there is no context lab. Next: known: home" in missing.stderr


def test_without_a_file_there_are_none(environ: dict[str, str]) -> None:
    Path(environ["HARP_CONFIG"]).unlink()
    listed = context(environ, "list")
    assert (listed.returncode, listed.stdout, listed.stderr) == (0, "", "No contexts.\n")
