"""What is read of a member's certificate without a library is what the library reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from harp_client import credentials, leaf
from harp_client.errors import HarpError
from harp_server.ca import Authority, identity, save_user


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A user's, the authority's own, and a session's with its chain."""
    authority = Authority.create("lab")
    issuer = authority.issue_server("one")
    issuer.save(tmp_path / "server")
    save_user(tmp_path / "user", issuer.root_pem, authority.issue_user("research", "alice"))
    chain, _ = issuer.issue("s1")
    (tmp_path / "session.pem").write_text(chain)
    return [
        tmp_path / "user" / "client.pem",
        tmp_path / "user" / "ca.pem",
        tmp_path / "session.pem",
    ]


def test_it_reads_what_the_library_reads(files: list[Path]) -> None:
    for path in files:
        found, wanted = leaf.read(path), credentials.certificate(path)
        assert found.identity == identity(wanted)
        assert found.not_valid_before_utc == wanted.not_valid_before_utc
        assert found.not_valid_after_utc == wanted.not_valid_after_utc
    assert leaf.read(files[0]).identity == "spiffe://lab/tenant/research/user/alice"


def test_times_of_both_kinds() -> None:
    assert leaf._time(0x17, b"491231235959Z").year == 2049
    assert leaf._time(0x17, b"500101000000Z").year == 1950
    assert leaf._time(0x18, b"20500101000000Z").year == 2050


def test_what_is_none_is_refused_in_a_line(files: list[Path], tmp_path: Path) -> None:
    text = files[0].read_text().splitlines()
    broken = tmp_path / "broken.pem"
    for lines in ([], ["nothing"], text[:1], [text[0], "????", text[-1]], [*text[:4], text[-1]]):
        broken.write_text("\n".join(lines))
        with pytest.raises(HarpError, match="not a PEM certificate"):
            leaf.read(broken)
    with pytest.raises(HarpError, match="no credentials"):
        leaf.read(tmp_path / "missing.pem")
