"""Train a config with several seeds, and write its row in `results/`.

    python benchmarks/publish.py mlp --config configs/mlp.yaml --seeds 1..10 --data_dir DATA
    python benchmarks/publish.py first_run --seeds 42 --data_dir DATA [options of fit]

The file is written after each seed. If it exists, only the seeds that it lacks are trained, if the
configuration and the environment are the same; `--again` replaces it. If the tested weights
are of the best epoch on the validation set, those of the last epoch are also tested. `--keep` needs
a new folder.
"""

import argparse
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import yaml

import mnist_lightning
from mnist_lightning import posix
from mnist_lightning.cli.parser import read_seeds
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.evaluation.forgetting import read_images
from mnist_lightning.evaluation.published import RESULTS, PublishedRow, Recipe, SeedResult, read_row
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import percent, say
from mnist_lightning.training.recipe_runs import RecipeRun, train_seed

ROOT = Path(__file__).parent.parent


def read_recipe(options: argparse.Namespace, rest: list[str]) -> Recipe:
    """Return what the command line asks for."""
    config: dict[str, Any] = {}
    if options.config is not None:
        config = yaml.safe_load((ROOT / options.config).read_text())
    return Recipe(
        config_file=options.config,
        config=config,
        options=rest,
        threads=options.threads,
        accelerator=options.accelerator,
    )


def test_last_epoch(run: Run, data_dir: str) -> float:
    """Return the test accuracy of the weights after the last epoch."""
    data = SOURCES[run.summary()["dataset"]].load(Path(data_dir))
    labels = read_images(mnist_lightning.load(run.recent()), data.test_images).labels
    return float((labels == data.test_labels.numpy()).mean())


def read_commit() -> str:
    """Return the commit of the checkout, in which only results may have changed."""

    def git(*arguments: str) -> str:
        return subprocess.check_output(["git", *arguments], cwd=ROOT, text=True).strip()

    if git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results"):
        raise SystemExit("commit the program first: the row names its commit")
    return git("rev-parse", "HEAD")


def make_row(
    name: str, recipe: Recipe, commit: str, run: RecipeRun, results: list[SeedResult]
) -> PublishedRow:
    """Return a row with the facts of its last run."""
    facts = run.run.summary()
    return PublishedRow(
        name=name,
        recipe=recipe,
        dataset=facts["dataset"],
        test_size=facts["test_size"],
        parameters=facts["parameters"],
        epochs=facts["epochs"],
        environment=run.environment,
        commit=commit,
        results=results,
    )


def main() -> None:
    """Write the row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--config", metavar="FILE", help="relative to the checkout")
    parser.add_argument("--seeds", type=read_seeds, required=True)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--workers", type=int, default=posix.cpu_count())
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--keep", type=Path, help="keep the run directories in this folder")
    options, rest = parser.parse_known_args()
    if options.keep is not None and options.keep.exists():
        raise SystemExit(f"--keep {options.keep}: it exists; choose a new folder")
    torch.set_num_threads(1)
    commit = read_commit()
    recipe, path = read_recipe(options, rest), RESULTS / f"{options.name}.json"
    earlier = read_row(path) if path.exists() and not options.again else None
    if earlier is not None and earlier.recipe != recipe:
        raise SystemExit(f"{path} is of another recipe: use --again")
    results = {result.seed: result for result in earlier.results} if earlier else {}
    left = [seed for seed in options.seeds if seed not in results]
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(options.workers) as pool:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)

        def train(seed: int) -> RecipeRun:
            return train_seed(recipe, seed, folder, options.data_dir)

        for run in pool.map(train, left):
            if earlier is not None and run.environment != earlier.environment:
                raise SystemExit(f"{path} is of another environment: use --again")
            last = test_last_epoch(run.run, options.data_dir)
            results[run.result.seed] = run.result.model_copy(update={"last_epoch_accuracy": last})
            ordered = [results[seed] for seed in sorted(results)]
            make_row(options.name, recipe, commit, run, ordered).save(RESULTS)
            tested = f"epoch {run.result.best_epoch}: {percent(run.result.test_accuracy)}"
            say(f"seed {run.result.seed}, {tested}; last epoch: {percent(last)}", flush=True)
            if options.keep is None:
                shutil.rmtree(run.run.folder)


if __name__ == "__main__":
    main()
