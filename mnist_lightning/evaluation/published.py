"""Published results: a JSON file for each row, with the figures and mistakes of each seed."""

import hashlib
import json
import shlex
import statistics
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mnist_lightning.errors import PACKAGE, PROGRAM, UserError
from mnist_lightning.evaluation.significance import Spread, prediction_interval, spread
from mnist_lightning.files import read_bounded, write_atomically
from mnist_lightning.runs import predictions_csv
from mnist_lightning.runs.run_directory import Run

RESULTS = PACKAGE / "results"
MAX_ROW_BYTES = 10_000_000


class SeedResult(BaseModel):
    """The result of the training with one seed.

    Attributes:
        seed: the seed.
        test_accuracy: the share of correct predictions on the test set.
        val_accuracy: on the validation set; None if there is none.
        best_epoch: the epoch of the tested weights, as in `summary.json`.
        last_epoch_accuracy: the test accuracy of the last epoch's weights; None: not measured.
        fit_seconds: the time of the training, with validation and checkpoints.
        epoch_seconds: the median time of an epoch, with validation.
        predictions: the SHA-256 of `predictions.csv`, which contains all probabilities.
        mistakes: by the index of a test image, the digit that was predicted instead of the label.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    test_accuracy: float = Field(ge=0, le=1)
    val_accuracy: float | None = Field(default=None, ge=0, le=1)
    best_epoch: int | None = None
    last_epoch_accuracy: float | None = Field(default=None, ge=0, le=1)
    fit_seconds: float = Field(ge=0)
    epoch_seconds: float | None = None
    predictions: str = Field(pattern="^[0-9a-f]{64}$")
    mistakes: dict[int, int]


class Recipe(BaseModel):
    """What a row trains.

    Attributes:
        config_file: the config, in the repository; None for the defaults of `fit`.
        config: the content of this file.
        options: further options of `fit`.
        threads: the number of threads of each training (`OMP_NUM_THREADS`).
        accelerator: Lightning's name of the device: `cpu` or `gpu`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    config_file: str | None
    config: dict[str, Any]
    options: list[str]
    threads: int = Field(gt=0)
    accelerator: str


class PublishedRow(BaseModel):
    """A published result: one recipe, trained with several seeds.

    Attributes:
        name: the name of the row; its file is `results/NAME.json`.
        recipe: what is trained.
        dataset: the name of the data set.
        test_size: the number of test images.
        parameters: the number of parameters of the network.
        epochs: the number of epochs.
        environment: the processor or GPU, and the version of each package.
        commit: the commit of the program.
        results: one for each seed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern="^[a-z0-9_]+$")
    recipe: Recipe
    dataset: str
    test_size: int = Field(gt=0)
    parameters: int = Field(gt=0)
    epochs: int = Field(gt=0)
    environment: dict[str, str]
    commit: str
    results: list[SeedResult] = Field(min_length=1)

    @property
    def command(self) -> str:
        """The command that trains all runs of the row."""
        recipe = self.recipe
        config = ["--config", recipe.config_file] if recipe.config_file else []
        seeds = ["--seeds", format_seeds([result.seed for result in self.results])]
        return f"{PROGRAM} fit {shlex.join([*config, *recipe.options, *seeds])}"

    @property
    def fit_seconds(self) -> float:
        """The median time of a training."""
        return statistics.median(result.fit_seconds for result in self.results)

    @property
    def accuracies(self) -> list[float]:
        """The test accuracy of each seed."""
        return [result.test_accuracy for result in self.results]

    @property
    def spread(self) -> Spread:
        """The mean and the standard deviation of the test accuracies."""
        return spread(self.accuracies)

    def interval(self, count: int = 1, level: float = 0.95) -> tuple[float, float]:
        """Return the prediction interval of the mean accuracy of `count` new seeds."""
        return prediction_interval(self.accuracies, count, level)

    def save(self, folder: Path) -> None:
        """Write the file of the row: one line for each seed."""
        content = self.model_dump(exclude={"results"})
        lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in content.items()]
        results = ",\n".join(f"    {result.model_dump_json()}" for result in self.results)
        text = "{\n" + ",\n".join([*lines, f'  "results": [\n{results}\n  ]']) + "\n}\n"
        write_atomically(text.encode(), folder / f"{self.name}.json")


def read_row(path: Path) -> PublishedRow:
    """Read the file of a row.

    Raises:
        UserError: it is damaged.
    """
    try:
        row = PublishedRow.model_validate_json(read_bounded(path, MAX_ROW_BYTES))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{path} is not a row of results: {place}: {first['msg']}") from None
    for result in row.results:
        if round((1 - result.test_accuracy) * row.test_size) != len(result.mistakes):
            problem = f"{len(result.mistakes)} mistakes, test accuracy {result.test_accuracy}"
            raise UserError(f"{path} contradicts itself: seed {result.seed}: {problem}")
    return row


def list_rows() -> dict[str, Path]:
    """Return the file of each row, by name."""
    return {path.stem: path for path in sorted(RESULTS.glob("*.json"))}


def read_result(run: Run) -> SeedResult:
    """Return the result of a finished run."""
    facts = run.summary()
    table = predictions_csv.read_labels(run.predictions)
    wrong = (~table.correct).nonzero()[0]
    return SeedResult(
        seed=facts["seed"],
        test_accuracy=float(table.correct.mean()),
        val_accuracy=facts.get("val/accuracy"),
        best_epoch=facts.get("best_epoch", facts["epochs"]),
        fit_seconds=facts["fit_seconds"],
        epoch_seconds=facts.get("epoch_seconds"),
        predictions=hashlib.sha256(run.predictions.read_bytes()).hexdigest(),
        mistakes={int(index): int(table.predicted[index]) for index in wrong},
    )


def format_seeds(seeds: list[int]) -> str:
    """Write seeds as `--seeds` reads them: `1..5`, or `1,2,7`."""
    if seeds == list(range(seeds[0], seeds[0] + len(seeds))) and len(seeds) > 1:
        return f"{seeds[0]}..{seeds[-1]}"
    return ",".join(map(str, seeds))
