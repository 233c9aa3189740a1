"""The formulas are found without loading torch."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_formulas_loads_no_torch() -> None:
    modules = [f"mloc_tasks.executors.ppo.{name}" for name in (
        "mask", "advantages", "kl", "rewards", "token_choices", "losses", "minibatches"
    )]  # fmt: skip
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
