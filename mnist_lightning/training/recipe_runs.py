"""Runs of a published recipe: each is a `fit` in a process of its own."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import yaml

from mnist_lightning import posix
from mnist_lightning.errors import UserError
from mnist_lightning.evaluation.published import Recipe, SeedResult, read_result
from mnist_lightning.runs.run_directory import Run


class RecipeRun(NamedTuple):
    """A training of a recipe.

    Attributes:
        run: its run directory.
        result: its figures.
        environment: the processor or GPU, and the version of each package.
        seconds: the time of the whole process.
    """

    run: Run
    result: SeedResult
    environment: dict[str, str]
    seconds: float


def train_seed(recipe: Recipe, seed: int, folder: Path, data_dir: str) -> RecipeRun:
    """Train a recipe with one seed, in the directory `seed_N` in `folder`.

    Raises:
        UserError: the training failed or was interrupted.
    """
    config, run = folder / f"seed_{seed}.yaml", Run(folder / f"seed_{seed}")
    config.write_text(yaml.safe_dump(recipe.config))
    command = [sys.executable, "-m", "mnist_lightning", "fit"]
    command += ["--config", str(config), *recipe.options]
    command += ["--data.data_dir", str(Path(data_dir).absolute())]
    command += ["--trainer.accelerator", recipe.accelerator, "--auto_resume", "false"]
    command += ["--seed_everything", str(seed), "--run_dir", str(run.folder)]
    variables = os.environ | {"OMP_NUM_THREADS": str(recipe.threads)}
    started = time.monotonic()
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        lines = (ended.stderr + ended.stdout).strip().splitlines()
        reason = lines[-1] if lines else f"exit status {ended.returncode}"
        raise UserError(f"the training with seed {seed} failed: {reason}")
    facts = run.summary("versions", "device")
    processor = posix.processor_name() if facts["device"] == "cpu" else facts["device"]
    made_with = {"processor": processor, **facts["versions"]}
    return RecipeRun(run, read_result(run), made_with, time.monotonic() - started)
