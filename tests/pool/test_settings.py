"""Every HARP_* variable that a source reads is declared once; the reference page is current."""

import re
from pathlib import Path

from harp_client import settings

ROOT = Path(__file__).parents[2]
SOURCES = ("client", "crates", "interposer", "server", "softgpu")
NAME = re.compile(r"\bHARP_[A-Z0-9_]*[A-Z0-9]\b")


def names_in_sources() -> dict[str, Path]:
    """Names in string literals of the product's own sources (tests of the crates included)."""
    found: dict[str, Path] = {}
    literal = re.compile(r'"[^"\n]*"')
    for part in SOURCES:
        for suffix in ("*.py", "*.rs"):
            for path in (ROOT / part).rglob(suffix):
                for text in literal.findall(path.read_text()):
                    found.update(dict.fromkeys(NAME.findall(text), path))
    return found


def test_every_variable_in_the_sources_is_declared() -> None:
    declared = {setting.name for setting in settings.ALL}
    undeclared = {k: str(v) for k, v in names_in_sources().items() if k not in declared}
    assert not undeclared


def test_every_declared_variable_is_read_somewhere() -> None:
    declaration = ROOT / "client" / "src" / "harp_client" / "settings.py"
    texts = [
        path.read_text()
        for part in SOURCES
        for suffix in ("*.py", "*.rs")
        for path in (ROOT / part).rglob(suffix)
        if path != declaration
    ]
    unread = [s.name for s in settings.ALL if not any(s.name in text for text in texts)]
    assert not unread


def test_reference_page_is_current() -> None:
    assert (ROOT / "docs" / "environment.md").read_text() == settings.markdown()
