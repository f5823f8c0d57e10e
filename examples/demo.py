"""`make demo`: runs `cupy_demo.py` under `harp-run` with its embedded pool.

The demo itself is ordinary CuPy code in an environment that does not know HARP.
"""

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT / "tests"))

from clients.environment import clients_python  # noqa: E402

command = [Path(sys.executable).parent / "harp-run", "--embedded", "--stats", "--"]
command += [clients_python(), CHECKOUT / "examples" / "cupy_demo.py"]
print("$ harp-run --embedded --stats -- python examples/cupy_demo.py\n", flush=True)
sys.exit(subprocess.run(command).returncode)
