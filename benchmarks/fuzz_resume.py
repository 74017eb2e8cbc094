"""Interrupt runs of random configurations at random moments, resume them, compare everything.

    python benchmarks/fuzz_resume.py --count 250 --first 0 --seed 1

A configuration is drawn from `seed` and its number, so that `--first N --count 1` repeats one. It
is trained once without interruption and once with up to six signals: SIGKILL, SIGTERM or SIGINT,
at a random time or in a certain call (inside a step, a save, a validation, the test, the end).
After each signal follows the command that a user would type: `resume`, or `fit` again where nothing
was saved yet. Some runs are extended: interrupted with one length, then resumed to a greater one,
and compared with a run that had the greater one from the start.

At tolerance 0, by name, these are equal: every checkpoint (`best`, `last`, `last-1`, … and those of
a ModelCheckpoint), `metrics.csv`, `predictions.csv`, `model.pth`, `summary.json`, and the set of
TensorBoard events (tag, step, value), each of which occurs once. Not compared, because they are
measured by a clock or name the process: durations, dates, speeds, device statistics, the order of
the event files. The lengths in a checkpoint's configuration are not compared for an extended run.

Each line has a verdict: `equal`; `refused` before training, with the reason; DIFFERENT; or LOST,
where a command failed.
"""

import argparse
import json
import os
import random
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from mnist_lightning.runs import run_directory
from mnist_lightning.runs.checkpoint import read_checkpoint, recent_checkpoints
from mnist_lightning.runs.run_directory import LOGS_FOLDER, Run
from mnist_lightning.tables import METRICS_FILE, read_metrics
from mnist_lightning.verify import first_difference
from tests.processes import Place, ended, start

MOST_SIGNALS = 6
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

Options = list[str]


class Case(NamedTuple):
    """A configuration and its length before and after it is extended."""

    options: Options
    length: Options
    extended: Options


class Verdict(NamedTuple):
    """What became of a case: `equal`, `refused`, `DIFFERENT` or `LOST`, and why."""

    kind: str
    reason: str
    signals: list[str]


# ---- drawing a configuration

NETWORKS = [
    ["MultilayerPerceptron"],
    ["MultilayerPerceptron"],
    ["MultilayerPerceptron"],
    ["TinyCNN", "width=4"],
    ["ClassicCNN"],
    ["BatchNormCNN", "dropout=0.3"],
]
OPTIMIZERS = [
    ["Adam", "lr=0.002"],
    ["Adam", "lr=0.002", "amsgrad=true"],
    ["AdamW", "lr=0.002"],
    ["SGD", "lr=0.05"],
    ["SGD", "lr=0.05", "momentum=0.9", "nesterov=true"],
    ["Adadelta", "lr=0.5"],
    ["Adafactor", "lr=0.02"],
    ["Adagrad", "lr=0.01"],
    ["Adamax", "lr=0.002"],
    ["ASGD", "lr=0.02", "t0=3"],
    ["LBFGS", "lr=0.2", "max_iter=2"],
    ["NAdam", "lr=0.002"],
    ["RAdam", "lr=0.002"],
    ["RMSprop", "lr=0.001", "momentum=0.5"],
    ["Rprop", "lr=0.0005"],
]
SCHEDULES: list[Options] = [
    ["ConstantLR", "factor=0.5", "total_iters=3"],
    ["CosineAnnealingLR", "T_max=7"],
    ["CosineAnnealingWarmRestarts", "T_0=2"],
    ["CyclicLR", "base_lr=0.0005", "max_lr=0.002", "step_size_up=4", "cycle_momentum=false"],
    ["ExponentialLR", "gamma=0.9"],
    ["LinearLR", "total_iters=5"],
    ["MultiStepLR", "milestones=[1,3,8]"],
    ["PolynomialLR", "total_iters=9"],
    ["StepLR", "step_size=2", "gamma=0.5"],
    [
        "torch.optim.lr_scheduler.OneCycleLR",
        "max_lr=0.002",
        "total_steps=500",
        "cycle_momentum=false",
    ],
    ["ReduceLROnPlateau", "patience=0"],
    ["ReduceLROnPlateau", "patience=0", "mode=max"],
    ["OneCycle", "cycle_momentum=false"],
    ["Cosine", "warmup=0.3"],
]
AUGMENTATIONS = [
    ["Deformation"],
    ["Deformation", "warp=1.0"],
    ["StrokeWidth"],
    ["Noise"],
    ["NoDigit"],
    ["Cutout"],
    ["Mixup"],
]
CALLBACKS: list[Options] = [
    ["ExponentialMovingAverage", "decay=0.8"],
    ["ExponentialMovingAverage", "decay=0.99"],
    ["EarlyStopping", "monitor=val/loss", "patience=1"],
    [
        "EarlyStopping",
        "monitor=train/loss",
        "patience=1",
        "min_delta=0.2",
        "check_on_train_epoch_end=true",
    ],
    ["LearningRateMonitor"],
    ["LearningRateMonitor", "logging_interval=step", "log_momentum=true"],
    ["ModelCheckpoint"],
    ["ModelCheckpoint", "monitor=val/loss", "save_top_k=2"],
    ["ModelCheckpoint", "every_n_train_steps=3", "save_top_k=-1"],
    ["DeviceStatsMonitor"],
    ["GradientAccumulationScheduler", "scheduling={1: 2, 2: 3}"],
    ["ModelSummary"],
    ["RichModelSummary"],
    ["WeightsFile"],
]
# What `fit` has to refuse before training.
REFUSED_SHARE = 0.03
REFUSED: list[Options] = [
    ["--model.optimizer=Muon", "--model.optimizer.lr=0.01"],
    ["--model.optimizer=SparseAdam", "--model.optimizer.lr=0.01"],
    ["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.01"],
    ["--trainer.callbacks+=ModelPruning", "--trainer.callbacks.pruning_fn=l1_unstructured"],
    ["--trainer.callbacks+=BatchSizeFinder"],
    ["--trainer.callbacks+=LearningRateFinder"],
    ["--trainer.callbacks+=BackboneFinetuning"],
    ["--trainer.callbacks+=SpikeDetection"],
    ["--trainer.callbacks+=OnExceptionCheckpoint", "--trainer.callbacks.dirpath=."],
    ["--trainer.callbacks+=RichProgressBar"],
    ["--trainer.callbacks+=TQDMProgressBar"],
    ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_last=true"],
]


def draw(chance: random.Random) -> Case:
    """Draw a configuration that is tiny, and valid but for rare combinations."""
    options: Options = ["--data.dataset", "digits", "--seed_everything", str(chance.randrange(99))]
    batches = chance.randint(3, 9)
    options += ["--trainer.limit_train_batches", chance.choice([str(batches), "0.5", "1.0"])]
    options += _component("--model.network", chance.choice(NETWORKS))
    options += _component("--model.optimizer", chance.choice(OPTIMIZERS))
    if chance.random() < 0.5:
        schedule = chance.choice(SCHEDULES)
        options += _component("--model.lr_scheduler", schedule)
        options += ["--model.lr_scheduler_interval", chance.choice(["epoch", "step"])]
    options += _augmentations(chance) + _callbacks(chance) + _trainer(chance)
    if not any("GradientAccumulationScheduler" in option for option in options):
        options += _one_of(chance, 0.25, "--trainer.accumulate_grad_batches", ["2", "3", "4"])
    if chance.random() < REFUSED_SHARE:
        options += chance.choice(REFUSED)
    options += _one_of(chance, 0.2, "--model.label_smoothing", ["0.1"])
    options += _one_of(chance, 0.2, "--model.channels_last", ["false"])
    options += _one_of(chance, 0.1, "--data.num_workers", ["2"])
    options += _one_of(chance, 0.15, "--data.val_size", ["0", "50"])
    options += _one_of(chance, 0.3, "--autosave", ["0", "0.001"])
    options += _one_of(chance, 0.4, "--keep_last", ["1", "2", "4", "5"])
    options += _one_of(chance, 0.6, "--dashboards", ["none", "none", "basic", "full"])
    if "--trainer.callbacks.monitor=val/loss" in options and chance.random() < 0.9:
        options = _validated(options)  # else an EarlyStopping may be refused
    length, extended = _lengths(chance)
    if not {"--model.lr_scheduler=OneCycle", "--model.lr_scheduler=Cosine"}.isdisjoint(options):
        extended = []  # these span the whole run
    return Case(options, length, extended)


def _validated(options: Options) -> Options:
    return [
        "50"
        if options[max(0, at - 1)] == "--data.val_size"
        else "1.0"
        if options[max(0, at - 1)] == "--trainer.limit_val_batches"
        else option
        for at, option in enumerate(options)
    ]


def _component(option: str, described: Options, append: str = "") -> Options:
    name, *arguments = described
    return [f"{option}{append}={name}", *(f"{option}.{argument}" for argument in arguments)]


def _one_of(chance: random.Random, share: float, option: str, values: list[str]) -> Options:
    return [option, chance.choice(values)] if chance.random() < share else []


def _augmentations(chance: random.Random) -> Options:
    if chance.random() > 0.35:
        return []
    chosen = [
        _described("mnist_lightning.data.augment.", each)
        for each in chance.sample(AUGMENTATIONS, chance.randint(1, 2))
    ]
    return ["--data.augment", json.dumps(chosen)]


def _described(module: str, described: Options) -> dict[str, Any]:
    name, *arguments = described
    pairs = (argument.split("=", 1) for argument in arguments)
    return {"class_path": module + name, "init_args": {k: json.loads(v) for k, v in pairs}}


def _callbacks(chance: random.Random) -> Options:
    if chance.random() > 0.55:
        return []
    options: Options = []
    chosen = {each[0]: each for each in chance.sample(CALLBACKS, chance.randint(1, 3))}
    for each in chosen.values():
        options += _component("--trainer.callbacks", each, append="+")
    return options


def _trainer(chance: random.Random) -> Options:
    precisions = ["64-true", "16-true", "bf16-true", "bf16-mixed", "16-mixed"]
    options = _one_of(chance, 0.35, "--trainer.precision", precisions)
    if chance.random() < 0.25:
        options += ["--trainer.gradient_clip_val", "0.5"]
        options += _one_of(chance, 0.5, "--trainer.gradient_clip_algorithm", ["value", "norm"])
    every = chance.random()
    if every < 0.15:
        options += ["--trainer.check_val_every_n_epoch", "null"]
        options += ["--trainer.val_check_interval", str(chance.randint(2, 20))]
    elif every < 0.4:
        options += ["--trainer.val_check_interval", chance.choice(["2", "3", "0.5", "0.34"])]
    elif every < 0.55:
        options += ["--trainer.check_val_every_n_epoch", "2"]
    options += _one_of(chance, 0.15, "--trainer.limit_val_batches", ["0", "1", "1.0"])
    options += _one_of(chance, 0.15, "--trainer.limit_test_batches", ["0", "1", "0.5"])
    options += _one_of(chance, 0.6, "--trainer.log_every_n_steps", ["1", "2", "5"])
    options += _one_of(chance, 0.1, "--trainer.min_epochs", ["2"])
    options += _one_of(chance, 0.1, "--trainer.min_steps", ["7"])
    return options


def _lengths(chance: random.Random) -> tuple[Options, Options]:
    """Draw how long to train, and to what length to extend the run afterwards, if at all."""
    epochs, steps = chance.randint(2, 4), chance.randint(2, 30)
    by_steps = chance.random() < 0.5
    length = (
        ["--trainer.max_steps", str(steps)] if by_steps else ["--trainer.max_epochs", str(epochs)]
    )
    if by_steps and chance.random() < 0.3:
        length += ["--trainer.max_epochs", str(epochs)]
    if len(length) > 2 or chance.random() > 0.25:
        return length, []
    more = steps + chance.randint(1, 15) if by_steps else epochs + 1
    return length, [length[0], str(more)]


# ---- interrupting a run

CHECKPOINTS = "mnist_lightning.callbacks.checkpoints"
TRAINING = "mnist_lightning.training"
# Calls in which a process sends itself a signal, and how often a run comes there at most.
TRAINING_PLACES = [
    ("mnist_lightning.classifier", "DigitClassifier.training_step", 30),
    ("mnist_lightning.classifier", "DigitClassifier.validation_step", 4),
    ("mnist_lightning.classifier", "DigitClassifier.on_validation_epoch_end", 4),
    ("mnist_lightning.classifier", "DigitClassifier.on_train_batch_end", 30),
    ("mnist_lightning.classifier", "DigitClassifier.on_train_epoch_end", 3),
    (CHECKPOINTS, "RunCheckpoints.on_step_completed", 30),
    (CHECKPOINTS, "RunCheckpoints.on_epoch_completed", 4),
    (CHECKPOINTS, "RunCheckpoints._save_last", 5),
    (CHECKPOINTS, "RunCheckpoints._rotate", 5),
    (CHECKPOINTS, "AtomicCheckpointIO.save_checkpoint", 6),
    (CHECKPOINTS, "write_atomically", 6),
    ("mnist_lightning.run_logger", "RunLogger.flush", 8),
    ("mnist_lightning.tables", "write_atomically", 4),
    ("mnist_lightning.callbacks.summary", "RunSummary._write", 6),
    ("os", "fsync", 40),
    (TRAINING, "_assemble", 1),
    (CHECKPOINTS, "remove_later_checkpoints", 1),
    ("mnist_lightning.cli", "cut_back", 1),
]
CLOSING_PLACES = [
    ("mnist_lightning.classifier", "DigitClassifier.on_train_end", 1),
    ("mnist_lightning.classifier", "DigitClassifier.test_step", 2),
    (CHECKPOINTS, "RunCheckpoints.on_training_completed", 1),
    ("mnist_lightning.run_logger", "RunLogger.close", 1),
    ("mnist_lightning.callbacks.summary", "RunSummary.finish", 1),
    (TRAINING, "_test", 1),
    (TRAINING, "_keep", 1),
    (TRAINING, "write_predictions", 1),
    (TRAINING, "_temperature", 1),
    (TRAINING, "_show_settings", 1),
]


def interrupt(command: Options, folder: Path, seconds: float, chance: random.Random) -> str | None:
    """Run a command and send it a signal; say which and where, or None if it ended before.

    Raises:
        RuntimeError: it ended in another way than by the signal.
    """
    sent = chance.choice(SIGNALS)
    if chance.random() < 0.7:
        closing = chance.random() < 0.25
        module, name, calls = chance.choice(CLOSING_PLACES if closing else TRAINING_PLACES)
        # A resumed run has fewer of them before its end.
        call = chance.randint(1, max(1, calls // chance.choice((1, 4, 8, 16))))
        place = Place(module, name, call, chance.random() < 0.5, sent)
        status = ended(start(command, folder, place))
        where = f"{name}#{place.call}{'+' if place.after else '-'}"
    else:
        moment = chance.uniform(0.05, seconds) * chance.choice((0.6, 1))
        process = start(command, folder)
        process.join(moment)
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, sent)
        status = ended(process)
        where = f"{moment:.2f}s"
    if status == 0:
        return None
    if status != 128 + sent:
        raise RuntimeError(f"exit status {status} after {sent.name} at {where}: {_said(folder)}")
    return f"{sent.name[3:]}@{where}"


def _said(folder: Path) -> str:
    lines = (folder / "printed").read_text(errors="replace").strip().splitlines()
    return next((line for line in reversed(lines) if "error" in line), lines[-1] if lines else "")


def newest(folder: Path) -> Run | None:
    """The newest run in a folder that can be resumed."""
    runs = run_directory.list_runs(folder / LOGS_FOLDER)
    found = [run for run in runs if recent_checkpoints(run)]
    return found[-1] if found else None


# ---- comparing two runs

MEASURED = ("images_per_second", "final/fit_seconds", "DeviceStatsMonitor")
TIMES = ("started", "fit_seconds", "epoch_seconds", "commit")
LENGTHS = ("max_steps", "max_epochs")


def differences(whole: Run, other: Run, extended: bool) -> Iterator[str]:
    """Name what differs between an uninterrupted run and one that was interrupted."""
    names = [
        {path.name for path in run.folder.rglob("*") if path.is_file()} for run in (whole, other)
    ]
    left, right = ({n for n in each if "tfevents" not in n and n != ".lock"} for each in names)
    if left != right:
        yield f"files {sorted(left ^ right)}"
    for path in sorted(whole.checkpoints.glob("*.ckpt")):
        if (other.checkpoints / path.name).is_file():
            pair = [_checkpoint(run, path.name, extended) for run in (whole, other)]
            where = first_difference(path.name, *pair)
            if where:
                yield where
    weights = [run.folder / "model.pth" for run in (whole, other)]
    if all(path.is_file() for path in weights):
        where = first_difference(
            "model.pth", *(torch.load(path, weights_only=True) for path in weights)
        )
        if where:
            yield where
    tables = [_rows(run) for run in (whole, other)]
    if tables[0] != tables[1]:
        yield f"metrics.csv: {_first(*tables)}"
    predictions = [
        run.predictions.read_bytes() for run in (whole, other) if run.predictions.exists()
    ]
    if len(set(predictions)) > 1:
        yield "predictions.csv"
    summaries = [
        {k: v for k, v in run.summary().items() if k not in TIMES} for run in (whole, other)
    ]
    if summaries[0] != summaries[1]:
        differing = [
            k for k in summaries[0] | summaries[1] if summaries[0].get(k) != summaries[1].get(k)
        ]
        yield f"summary.json: {differing}"
    events = [_events(run) for run in (whole, other)]
    if events[0] != events[1]:
        surplus = sorted(map(str, (events[1] - events[0]).elements()))[:3]
        missing = sorted(map(str, (events[0] - events[1]).elements()))[:3]
        yield f"TensorBoard: surplus {surplus}, missing {missing}"
    twice = [key for key, count in events[0].items() if count > 1]
    if twice:
        yield f"TensorBoard: more than once without interruption: {twice[:3]}"


def _first(left: list[Any], right: list[Any]) -> str:
    pairs = zip(left, right, strict=False)
    return next((f"{a} / {b}" for a, b in pairs if a != b), f"{len(left)} / {len(right)} rows")


def _checkpoint(run: Run, name: str, extended: bool) -> Any:
    checkpoint = read_checkpoint(run.checkpoints / name)
    if extended:
        for length in LENGTHS:
            checkpoint["config"]["trainer"].pop(length)
    return _without_folder(checkpoint, run)


def _without_folder(part: Any, run: Run) -> Any:
    """Replace a run's folder, which a ModelCheckpoint keeps in its state."""
    if isinstance(part, str):
        for folder in (
            str(run.folder.resolve()),
            str(run.folder),
            f"{LOGS_FOLDER}/{run.folder.name}",
        ):
            part = part.replace(folder, "RUN")
        return part
    if isinstance(part, dict):
        return {_without_folder(k, run): _without_folder(v, run) for k, v in part.items()}
    if isinstance(part, list | tuple):
        return [_without_folder(each, run) for each in part]
    return part


def _rows(run: Run) -> list[list[tuple[str, str]]]:
    rows = read_metrics(run.folder / METRICS_FILE)
    return [
        [(column, value) for column, value in row.items() if not column.startswith(MEASURED)]
        for row in rows
    ]


def _events(run: Run) -> Counter[tuple[str, int, Any]]:
    found: Counter[tuple[str, int, Any]] = Counter()
    for path in run.folder.rglob("*tfevents*"):
        for event in _read_events(path):
            if event.HasField("graph_def"):
                found["graph", event.step, None] += 1
            for value in event.summary.value:
                found[value.tag, event.step, _content(value)] += 1
    return found


def _read_events(path: Path) -> Iterator[Event]:
    content, position = path.read_bytes(), 0
    while position + 12 <= len(content):
        length = int.from_bytes(content[position : position + 8], "little")
        yield Event.FromString(content[position + 12 : position + 12 + length])
        position += length + 16


def _content(value: Summary.Value) -> Any:
    if value.tag.startswith(MEASURED) or value.tag.startswith("_hparams_/"):
        return None
    return value.SerializeToString(deterministic=True)


# ---- one case


def try_case(case: Case, place: Path, chance: random.Random) -> Verdict:
    """Train a configuration with and without interruptions; compare what they leave."""
    whole_folder, folder = place / "whole", place / "killed"
    for each in (whole_folder, folder):
        each.mkdir()
    began = time.perf_counter()
    status = ended(start(["fit", *case.options, *(case.extended or case.length)], whole_folder))
    seconds = time.perf_counter() - began
    whole = newest(whole_folder)
    if status != 0:
        before = not (whole_folder / LOGS_FOLDER).exists()
        kind = "refused" if status == 2 and before else "LOST"
        return Verdict(kind, f"exit status {status}: {_said(whole_folder)}", [])
    assert whole is not None
    signals: list[str] = []
    fit = ["fit", *case.options, *case.length]
    try:
        for _ in range(chance.randint(2, MOST_SIGNALS)):
            command = ["resume"] if newest(folder) else fit
            done = interrupt(command, folder, seconds, chance)
            if done is None:
                break  # it came to its end
            signals.append(done)
        _finish(["resume"] if newest(folder) else fit, folder)
        if case.extended:
            _finish(["resume", *case.extended], folder)
    except (RuntimeError, AssertionError) as error:
        return Verdict("LOST", str(error), signals)
    other = newest(folder)
    assert other is not None
    found = list(differences(whole, other, bool(case.extended)))
    if list(folder.rglob(".*.tmp")):
        found.append("half-written files are left")
    return Verdict("DIFFERENT" if found else "equal", "; ".join(found), signals)


def _finish(command: Options, folder: Path) -> None:
    status = ended(start(command, folder))
    if status != 0:
        raise RuntimeError(f"{command[0]}: exit status {status}: {_said(folder)}")


def run_cases(
    seed: int, first: int, count: int, keep: Path | None = None
) -> Iterator[tuple[int, Case, Verdict]]:
    """Try cases of consecutive numbers."""
    for number in range(first, first + count):
        chance = random.Random(f"{seed} {number}")
        case = draw(chance)
        with tempfile.TemporaryDirectory(prefix="fuzz_resume_") as place:
            verdict = try_case(case, Path(place), chance)
            if keep is not None and verdict.kind in ("DIFFERENT", "LOST"):
                shutil.copytree(place, keep / f"{seed}_{number}", dirs_exist_ok=True)
        yield number, case, verdict


def main() -> int:
    """Print a line a case and a summary; return 1 if a run differs or is lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=250)
    parser.add_argument("--keep", type=Path, help="copy the folders of failures there")
    options = parser.parse_args()
    kinds: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    signals = 0
    began = time.perf_counter()
    for number, case, verdict in run_cases(
        options.seed, options.first, options.count, options.keep
    ):
        kinds[verdict.kind] += 1
        signals += len(verdict.signals)
        words = shlex.join(
            [*case.options[4:], *case.length, *(["then", *case.extended] if case.extended else [])]
        )
        print(
            f"{options.seed}/{number} {verdict.kind} [{' '.join(verdict.signals)}] {words}",
            flush=True,
        )
        if verdict.reason:
            print(f"    {verdict.reason}", flush=True)
        if verdict.kind == "refused":
            reasons[verdict.reason] += 1
    minutes = (time.perf_counter() - began) / 60
    shown = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    print(f"{options.count} configurations, {signals} signals: {shown} ({minutes:.1f} minutes)")
    for reason, count in reasons.most_common():
        print(f"  refused {count}: {reason}")
    return 1 if kinds.keys() & {"DIFFERENT", "LOST"} else 0


if __name__ == "__main__":
    sys.exit(main())
