"""The commands in the documents work in a new checkout."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

import mnist_lightning
from mnist_lightning.cli.main import COMMANDS
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.networks.registry import REGISTERED
from mnist_lightning.training.registry import AUGMENTATIONS
from tests.documented_code import assert_same_output, blocks, run_examples
from tests.images import write_arrays

ROOT = Path(__file__).parent.parent.parent
README, GUIDE, HOWTO, LEARN = (
    ROOT / name for name in ("README.md", "docs/guide.md", "docs/howto.md", "docs/learn.md")
)
PYTHON = "python -m mnist_lightning "
# Commands that run until they are stopped, and a page to request.
SERVERS = {"demo": "api/health", "serve": "api/health", "tensorboard": ""}
# Commands that need a download; without a network they fail with one line.
DOWNLOADS = ("fashion_mnist", "my_handwriting.yaml", "--fetch")
# What takes minutes, and what is run instead.
SHORTER = {
    "--trials 30": "--trials 4",
    "--seeds 1..3": "--seeds 1..2 --trainer.max_epochs 1",
    "--sampler grid": "--sampler grid --trainer.max_epochs 1",
    "configs/handwriting.yaml": "configs/handwriting.yaml --trainer.max_epochs 1",
}
# The fixture `checkout` and CI do the same.
INSTALLATION = ("git clone ", "python3 -m venv ")


def commands(document: Path, *earlier_documents: Path) -> list[str]:
    """Return the shell commands of a document that the earlier documents do not contain."""
    known = {line for earlier in earlier_documents for line in commands(earlier)}
    lines = [line for block in blocks(document, "console") for line in block.splitlines()]
    return [line for line in lines if line not in known]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new copy of the project, without data; and a user's own images and arrays."""
    for folder in ("mnist_lightning", "configs", "samples"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    digits = SOURCES["digits"].load(tmp_path)
    for place, label in enumerate(digits.train_labels[:100].tolist()):
        path = tmp_path / "mine" / str(label) / f"{place}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(255 - digits.train_images[place].numpy()).resize((140, 140)).save(path)
    write_arrays(tmp_path / "arrays", digits)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("BROWSER", "true")  # a browser that opens nothing
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    return tmp_path


def run_line(line: str) -> str:
    """Run a shell command, or a shorter one; return its output."""
    for long, short in SHORTER.items():
        line = line.replace(long, short)
    if any(line.startswith((f"{PYTHON}{name}", name)) for name in SERVERS):
        return check_server(line)
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=1500)
    printed = done.stdout + done.stderr
    assert "Traceback" not in printed, (line, printed)
    if done.returncode == 1 and any(word in line for word in DOWNLOADS):
        assert re.search("error: .* could not be downloaded", done.stderr), (line, printed)
    else:  # one of the samples has no digit
        expected = 1 if "predict samples/ " in line else 0
        assert done.returncode == expected, (line, printed)
    return printed


def check_server(line: str) -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    page = next(page for name, page in SERVERS.items() if name in line)
    url = f"http://localhost:{port}/{page}"
    on_free_port = f"exec {line} --port {port}"  # the documented port may be in use
    process = subprocess.Popen(["bash", "-c", on_free_port], start_new_session=True)
    try:
        for _ in range(240):
            assert process.poll() is None, f"{line} ended"
            try:
                with urllib.request.urlopen(url, timeout=5) as response:
                    assert response.status == 200
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.25)
        else:
            pytest.fail(f"{line} does not answer at {url}")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        process.wait(300)
    return ""


def without_pip_install(line: str) -> str:
    """Remove `pip install` from a command, because CI tests it; check that its extras exist."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for extra in re.findall(r"\.\[(\w+)\]", line):
        assert extra in extras
    return re.sub(r"^pip (install|download) [^&]*(&& )?", "", line)


def test_every_command_of_the_readme_works(checkout: Path) -> None:
    for line in commands(README):
        rest = "" if line.startswith(INSTALLATION) else without_pip_install(line)
        if rest not in ("", "make check"):
            run_line(rest)
    for page in ("report/report.html", "export/onnx/model.onnx"):
        assert list((checkout / "lightning_logs").rglob(page)), page
    assert len(list((checkout / "seen").iterdir())) == 5


def test_every_command_of_the_guide_works(checkout: Path) -> None:
    run_line(f"{PYTHON}fit --data.dataset digits --trainer.max_epochs 1")
    for line in commands(GUIDE, README):
        if rest := without_pip_install(line):
            run_line(rest)


def test_every_command_of_the_how_to_works(checkout: Path) -> None:
    (checkout / "mnist_lightning/networks/my_net.py").write_text(blocks(HOWTO, "python")[0])
    run_line(f"{PYTHON}fit --seeds 0..4 --trainer.max_epochs 1 --data.dataset digits")
    for line in commands(HOWTO, README, GUIDE):
        rest = without_pip_install(line)
        if rest == f"{PYTHON}resume":
            interrupt_fit(f"{PYTHON}fit --data.dataset digits --trainer.max_epochs 50")
        if rest:
            run_line(rest)


def interrupt_fit(line: str) -> None:
    """Start a run, and interrupt it after its first epoch."""
    before = set(Path("lightning_logs").glob("*/checkpoints/last.ckpt"))
    process = subprocess.Popen(["bash", "-c", f"exec {line}"], stdout=subprocess.DEVNULL)
    while set(Path("lightning_logs").glob("*/checkpoints/last.ckpt")) == before:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(300) == 130


@pytest.mark.mnist
def test_the_code_of_the_introduction_prints_the_documented_output(
    tmp_path: Path, mnist_dir: Path
) -> None:
    (tmp_path / "data").symlink_to(mnist_dir)
    # Processors add in different orders: the numbers of an untrained network differ in the last
    # digit, the last loss and the accuracy of a trained network differ more.
    *printed, loss, correct = "".join(run_examples(LEARN, tmp_path)).splitlines()
    *expected_lines, expected_loss, expected_correct = "".join(blocks(LEARN, "")).splitlines()
    for line, expected_line in zip(printed, expected_lines, strict=True):
        assert_same_output(line, expected_line)
    assert numbers(loss) == pytest.approx(numbers(expected_loss), abs=0.1)
    assert numbers(correct) == pytest.approx(numbers(expected_correct), abs=60)


def numbers(line: str) -> list[float]:
    """Return the numbers in a line."""
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", line)]


def test_the_site_builds_without_warnings_and_its_reference_is_complete(tmp_path: Path) -> None:
    options = ["-q", "-W", "--keep-going", "-c", "docs", "-d", str(tmp_path / "doctrees")]
    build = [sys.executable, "-m", "sphinx", *options, ".", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "docs/reference.html").read_text()
    public = [f"mnist_lightning.{name}" for name in mnist_lightning.__all__]
    for name in [*public, *AUGMENTATIONS, *REGISTERED]:
        assert f'id="{name}"' in page
    text = re.sub("<[^>]+>", "", page)
    for command in COMMANDS:
        assert f"{PYTHON}{command} " in text
