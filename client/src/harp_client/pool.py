"""The embedded pool of one `harp-run`: an agent in a child process, tied to this process's life."""

import os
import shutil
from collections.abc import Mapping

from harp_client.attendant import Attendant, module
from harp_client.target import Target

READY_SECONDS = 30.0
GOODBYE_SECONDS = 5.0


class EmbeddedPool:
    """Starts on construction; `close` ends it. If this process dies, the pool ends itself."""

    def __init__(self, device: str, verbose: bool, environ: Mapping[str, str]) -> None:
        options = ["--device", device, "--log-level", "info" if verbose else "error"]
        work = module("harp_server.embedded", options, environ)
        self._agent = Attendant(work, "the embedded pool", READY_SECONDS)
        answer = self._agent.answer
        self.target = Target(
            answer["address"], answer["credentials"], ptx=device == "soft", embedded=True
        )

    def close(self) -> None:
        """Ends the pool and what it left, within a bound."""
        self._agent.close(GOODBYE_SECONDS)
        if self._agent.status != 0:
            shutil.rmtree(os.path.dirname(self.target.credentials), ignore_errors=True)
