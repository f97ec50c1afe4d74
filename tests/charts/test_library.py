import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_copies_are_in_step() -> None:
    """Each subchart's copy of the shared templates, values and schema is the umbrella's."""
    script = ROOT / "tools" / "write_chart_library.py"
    checked = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )

    assert checked.stderr == ""
    assert checked.returncode == 0
