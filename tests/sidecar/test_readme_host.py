"""The README's host of a sidecar, run as it stands there, and its tables against the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

from bulkops.sidecar import ending, process
from tests.sidecar.ground import lay
from tests.sidecar.host import ROOT

SECTION = (
    (ROOT / "README.md").read_text(encoding="utf-8").partition("## On the desktop\n")[2].partition("\n## ")[0]
)


def test_the_host_of_the_readme_starts_asks_and_stops(tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n# host\.py\n(.*?)```", SECTION, re.DOTALL)
    (tmp_path / "host.py").write_text(script)
    argv = [sys.executable, str(tmp_path / "host.py"), str(lay(tmp_path / "data"))]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    assert (done.stdout, done.stderr) == ("jobs: 0\nended with 0\n", "")
    (tmp_path / "data" / "bulkops.toml").write_text("[server\n")
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert done.stderr.startswith("config: bulkops.toml")


def test_exit_codes_and_reasons_are_those_of_the_code() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", SECTION, re.MULTILINE))
    assert set(map(int, rows)) == {0, 2, process.CANNOT_START, *process.EXITS.values(), ending.FORCED}
    for code, number in process.EXITS.items():
        assert f"`{code}`" in rows[str(number)]
    (reasons,) = re.findall(r"`reason` is (.*) \|", SECTION)
    assert set(re.findall(r"`(\w+)`", reasons)) == set(get_args(ending.Reason))
