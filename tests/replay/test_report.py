"""`harp-replay report`: one page, looked at as a browser shows it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harp_replay.report import elsewhere
from harp_replay.slices import Slices
from harp_replay.timeline import Begin, End, Track, marks
from replay.made import Made, small

Look = Callable[..., Any]

EVIL = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"


class Elements(HTMLParser):
    """The elements of a page by name, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def page(look: Look, tmp_path: Path) -> Callable[[Path], Path]:
    def page(trace: Path) -> Path:
        file = tmp_path / "report.html"
        ended = look("report", trace, "-o", file)
        assert ended.status == 0, ended.err
        return file

    return page


@pytest.fixture
def browser(tmp_path: Path) -> Callable[..., Elements]:
    """Opens a page in a browser without a screen; the elements once its program has run."""
    program = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if program is None:
        pytest.skip("no browser: apt-get install chromium-headless-shell enables this")

    def browser(file: Path, part: str = "") -> Elements:
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        command += [f"--user-data-dir={tmp_path}/profile", "--window-size=1000,800"]
        address = f"file://{file}{part}"
        ended = subprocess.run(
            [*command, address], capture_output=True, text=True, timeout=120, check=True
        )
        return Elements(ended.stdout)

    return browser


def timeline_of(seen: Elements) -> dict[str, str | None]:
    (found,) = [each for each in seen.named("div") if each.get("id") == "timeline"]
    return found


def test_a_browser_draws_the_timeline(
    page: Callable[[Path], Path], browser: Callable[..., Elements], timed: Path
) -> None:
    file = page(timed)
    slices = Slices().add(marks(str(timed))).close().data()["slices"]
    shown = timeline_of(browser(file))
    # Ten driver API calls, two waits, four kernels, and when four copies were queued.
    assert shown["data-drawn"] == str(len(slices)) == "20"
    first = min(one[2] for one in slices)
    assert shown["data-view"] is not None
    assert shown["data-view"].startswith(f"{first}-")
    # A part of it, by the address: only the first call and its wait lie there.
    part = timeline_of(browser(file, "#0-200000"))
    assert (part["data-drawn"], part["data-view"]) == ("2", "0-200000")


def test_the_page_needs_nothing_else(page: Callable[[Path], Path], untimed: Path) -> None:
    text = page(untimed).read_text()
    assert not re.search(r"""(?:src|href)\s*=|url\(|@import|https?://|fetch\(|import\(""", text)
    policy = next(
        each["content"]
        for each in Elements(text).named("meta")
        if each.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy


def test_names_of_a_hostile_trace_stay_text(
    page: Callable[[Path], Path], browser: Callable[..., Elements], tmp_path: Path
) -> None:
    made = Made(program=EVIL)
    made.launch(EVIL)
    made.waiting(EVIL, EVIL)
    made.add("thread", thread=2, tid=79, name=EVIL)
    made.add("session", number=1, server=EVIL, round_trip_ns=EVIL, snapshot={"devices": [EVIL]})
    made.add("loss", time=1, reasons=[EVIL], blocks=1, bytes=1)
    made.end()
    file = page(made.write(tmp_path / "evil.jsonl"))
    written = Elements(file.read_text())
    assert written.named("img") == []
    assert len(written.named("script")) == 2
    seen = browser(file)
    assert seen.named("img") == []
    assert len(seen.named("script")) == 2
    title = seen.text[seen.text.index(f"{EVIL}: trace")]
    assert title != "owned"
    assert int(timeline_of(seen)["data-drawn"] or 0) > 3


def test_a_long_name_opens_to_all_of_it(page: Callable[[Path], Path], tmp_path: Path) -> None:
    name = f"void sort<{', '.join(f'Policy<{number}>' for number in range(40))}>(float*)"
    made = Made()
    made.launch("_Z4sort", demangled=name, took=1_000)
    made.launch("short", took=1_000)
    made.end()
    seen = Elements(page(made.write(tmp_path / "long.jsonl")).read_text())
    assert len(seen.named("details")) == 1
    assert name in seen.text
    assert "short\n" in seen.text
    # Where names stand in a row, its beginning will do.
    assert f"2 launches: short × 1, {name[:79]}… × 1" in seen.text


def test_the_page_says_what_waits_would_cost_elsewhere(
    look: Look, page: Callable[[Path], Path], untimed: Path
) -> None:
    text = page(untimed).read_text()
    # Two waits of 0.2 ms each, at 0.1 ms; at 10 ms each takes 9.9 more.
    assert "All waits together: 0.4 ms" in text
    # The run is the one that `predict` foretells.
    runs = json.loads(look("predict", untimed, "--rtt", "10ms", "--json").out)["runs"]
    assert f" {runs[0]['seconds'] * 1e3:.1f} ms at 10 ms," in text
    row = text[text.index("memory is allocated") - 300 : text.index("memory is allocated")]
    assert re.findall(r"<td>([\d.,]+)", row)[-6:] == ["1", "0.20", "0.20", "1.10", "10.10", "30.10"]
    assert elsewhere(2, 0.4, 0.1) == pytest.approx([0.4, 2.2, 20.2, 60.2])


def test_a_page_is_bounded_and_keeps_what_is_longest(untimed: Path) -> None:
    slices = Slices(most=3).add(marks(str(untimed))).close()
    data = slices.data()
    titles = [track["name"] for track in data["tracks"]]
    calls = [one for one in data["slices"] if titles[one[0]] == "main"]
    # The two calls that wait, and one of their waits; streams have room of their own.
    assert len(calls) == 3
    assert {"cuMemAlloc_v2", "cuMemcpyDtoH_v2"} <= {data["names"][one[4]] for one in calls}
    assert len(data["slices"]) == 6
    everything = Slices().add(marks(str(untimed))).close()
    assert slices.left_out == len(everything.data()["slices"]) - 6
    assert everything.left_out == 0


def test_of_many_slices_alike_some_of_the_whole_run_are_kept() -> None:
    track = Track("thread", 1, 0, "main")
    slices = Slices(most=100)
    for at in range(10_000):
        slices.add([Begin(track, 10 * at, "k", "api", {}), End(track, 10 * at + 5)])
    begins = sorted(one[2] for one in slices.data()["slices"])
    assert len(begins) == 100
    # A tenth of the run has about a tenth of them.
    for part in range(10):
        found = sum(part * 10_000 <= begin < (part + 1) * 10_000 for begin in begins)
        assert 5 <= found <= 15


def test_the_data_of_the_page_is_json(page: Callable[[Path], Path], tmp_path: Path) -> None:
    made = small()
    made.lines.insert(5, {"type": "thread", "thread": 9, "tid": 9, "name": "<!--\u2028"})
    text = page(made.write(tmp_path / "odd.jsonl")).read_text()
    data = re.search(r"<script type=\"application/json\" id=data>(.*?)</script>", text, re.S)
    assert data is not None
    assert "<!--\u2028" in [track["name"] for track in json.loads(data[1])["tracks"]]
