"""A short run of the fuzzer of files, `benchmarks/fuzz_files.py`."""

import subprocess
import sys
from pathlib import Path

import pytest

FUZZER = Path(__file__).parent.parent.parent / "benchmarks" / "fuzz_files.py"


@pytest.mark.skipif(sys.platform != "linux", reason="the fuzzer forks")
def test_the_fuzzer_finds_no_failure(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(FUZZER), "--count", "60", "--seed", "23", "--processes", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 mutations" in done.stdout
    assert ": 0 failures" in done.stdout
