"""The pretrained network, its command `demo`, and the page that contains it."""

import hashlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from mnist_lightning import load
from mnist_lightning.data.synthetic import draw_digits
from mnist_lightning.deployment import html_export
from mnist_lightning.errors import UserError
from mnist_lightning.runs.lookup import ensemble_directory
from mnist_lightning.runs.run_directory import PRETRAINED_FOLDER, Run
from mnist_lightning.runs.safetensors_file import METADATA_KEY
from tests.conftest import DIGITS, Command
from tests.images import draw_seven
from tests.processes import child_process

ROOT = Path(__file__).parents[2]
MODEL = Run(PRETRAINED_FOLDER).best
DEMO = ROOT / "docs" / "demo" / "index.html"


def test_the_file_and_the_config_are_those_of_its_training() -> None:
    checksums = json.loads((PRETRAINED_FOLDER / "checksums.json").read_text())
    assert hashlib.sha256(MODEL.read_bytes()).hexdigest() == checksums["model.safetensors"]
    assert MODEL.stat().st_size <= 500_000
    script = "import pretrained; print(pretrained.config_checksum())"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT / "docs",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == checksums["configs/handwriting.yaml"], "run `make pretrained`"


@pytest.mark.mnist
def test_its_accuracy_is_the_published_one(command: Command, mnist_dir: Path) -> None:
    result = command("test", "pretrained", "--data.data_dir", str(mnist_dir))
    summary = Run(PRETRAINED_FOLDER).summary()
    assert f"{summary['test/correct']:,} of 10,000" in result.out
    assert Path("lightning_logs", "pretrained.mnist.csv").is_file()


def test_a_run_without_a_validation_set_is_never_the_best(command: Command, run_0: Run) -> None:
    draw_seven().save("seven.png")
    command("fit", *DIGITS, "--data.val_size", "0", "--trainer.max_epochs", "1")
    problem = "no run with a val/accuracy in lightning_logs"
    error = command("predict", "seven.png").err
    assert f"{problem}: using the pretrained network; existing runs: 0 (digits)" in error
    assert f"{problem}; existing runs: 0 (digits)" in command("report").err


def test_it_is_used_if_there_is_no_run(command: Command) -> None:
    draw_seven().save("seven.png")
    for arguments in ([], ["--run", "pretrained"], ["--run", "best"]):
        result = command("predict", "seven.png", *arguments)
        assert result.status == 0, result.err
        assert result.out.startswith("seven.png  7  >99.9 %")
        note = "no trained run in lightning_logs: using the pretrained network\n"
        assert result.err == ("" if "pretrained" in arguments else note)
    (reading,) = load("pretrained").read("seven.png")
    assert (reading.label, reading.unsure) == (7, False)
    assert re.fullmatch(r"<7 \(>99\.9 %\) at \(\d+, \d+, \d+, \d+\)>", repr(reading))


def test_it_is_exported_without_a_data_set(command: Command) -> None:
    result = command("export", "--format", "onnx", "--check_images", "50")
    assert result.status == 0, result.err
    assert result.out.startswith("lightning_logs/pretrained as onnx: 50 of 50 labels equal")
    assert Path("lightning_logs", "pretrained", "export", "onnx", "model.onnx").is_file()


def test_a_run_starts_from_its_weights(command: Command, run_0: Run) -> None:
    network = ("--model.network", "ResidualCNN", "--model.network.width", "16")
    options = (*DIGITS, *network, "--trainer.max_epochs", "1")
    result = command("fit", *options, "--init_from", "pretrained")
    assert result.status == 0, result.err
    assert run_0.summary()["val/accuracy"] > 0.95
    assert "sha256:" in run_0.summary()["init_from"]


def test_what_needs_a_training_is_refused_with_a_fix(command: Command) -> None:
    result = command("resume", "pretrained")
    assert (result.status, "fit --init_from pretrained" in result.err) == (2, True)
    result = command("report", "pretrained")
    assert (result.status, "its training is not stored" in result.err) == (2, True)


def _parts(page: str) -> tuple[str, dict[str, Any]]:
    """Return the page without its model, and the model."""
    found = re.search(r'(<script id="model"[^>]*>)(.*?)(</script>)', page, re.DOTALL)
    assert found is not None
    return page.replace(found[2], ""), json.loads(found[2])


def test_the_committed_page_is_that_of_the_code_and_the_network(
    command: Command, tmp_path: Path
) -> None:
    new = tmp_path / "new.html"
    result = command("export", "pretrained", "--format", "html", "--output", str(new))
    assert result.status == 0, result.err
    page, model = _parts(new.read_text(encoding="utf-8"))
    committed_page, committed = _parts(DEMO.read_text(encoding="utf-8"))
    assert page == committed_page, "run `make pretrained`"
    # Another version of torch may describe the same network by other steps.
    assert model | {"steps": []} == committed | {"steps": []}
    images, labels = draw_digits(30, seed=3)
    expected, actual = (html_export.predict_logits(path, images) for path in (new, DEMO))
    assert np.allclose(expected, actual, atol=1e-3)
    assert (actual.argmax(axis=1) == labels).mean() > 0.9
    assert DEMO.stat().st_size <= 450_000


@pytest.mark.slow
def test_demo_opens_the_page_in_a_browser(tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path / "opened"}\n')
    browser.chmod(0o755)
    with child_process(
        [sys.executable, "-m", "mnist_lightning", "demo"],
        cwd=tmp_path,
        env=os.environ | {"BROWSER": str(browser), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = line.rpartition(" at ")[2].strip()
        assert line.startswith("serving the pretrained network at http://127.0.0.1:"), line
        for _ in range(600):
            if (tmp_path / "opened").exists() and (tmp_path / "opened").read_text().strip():
                break
            time.sleep(0.1)
        assert (tmp_path / "opened").read_text().strip() == address
        assert "Draw a digit" in httpx.get(address).text
        runs = httpx.get(f"{address}/api/runs").json()
        assert [run["name"] for run in runs] == ["pretrained"]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_its_name_is_reserved(command: Command, tmp_path: Path) -> None:
    (tmp_path / "pretrained").mkdir()
    draw_seven().save(tmp_path / "seven.png")
    result = command("predict", "seven.png", "--run", "pretrained")
    assert result.status == 0, result.err


def test_results_of_an_ensemble_with_it_are_not_in_the_package() -> None:
    members = [Run(PRETRAINED_FOLDER), Run(Path("elsewhere/version_3"))]
    folder = ensemble_directory(members, Path("logs"))
    assert folder == Path("elsewhere/ensemble_pretrained_3")
    assert ensemble_directory(members[:1], Path("logs")).parent == Path("logs")


@pytest.mark.parametrize("wrong", [{"digit_slope": math.nan}, {"temperature": 0}, [], "x", None])
def test_a_file_with_an_invalid_calibration_is_refused(tmp_path: Path, wrong: Any) -> None:
    with safe_open(MODEL, "pt") as file:
        description = json.loads(file.metadata()[METADATA_KEY])
        names = file.keys()
        weights = {name: file.get_tensor(name) for name in names}
    description = description | wrong if isinstance(wrong, dict) else wrong
    path = tmp_path / "model.safetensors"
    save_file(weights, path, {METADATA_KEY: json.dumps(description)})
    with pytest.raises(UserError, match="is damaged or was not written by `export`"):
        load(path)
