"""The command `sweep`: search for the best options, or compare config files over several seeds."""

import hashlib
import json
import logging
import os
import re
import shlex
from argparse import SUPPRESS, Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import optuna

from mnist_lightning import files
from mnist_lightning.cli import console, sweep_configs, sweep_dev_run, sweep_progress
from mnist_lightning.cli.lightning_cli import DigitCLI, ExperimentParser
from mnist_lightning.cli.parser import find_file, read_files, read_seeds
from mnist_lightning.cli.sweep_space import refuse_foreign_space
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.runs.config import is_unbounded
from mnist_lightning.tuning import results, search_space
from mnist_lightning.tuning import study as studies
from mnist_lightning.tuning.samplers import SAMPLERS
from mnist_lightning.tuning.search_space import SearchSpace, add_options
from mnist_lightning.tuning.trial_runner import Plan

OF_ONE_RUN = ("ckpt_path", "run_dir")  # options of `fit`
OF_A_SEARCH = ("space", "trials", "sampler", "pruner", "seed")  # not with --configs
OF_A_MACHINE = ("--trainer.default_root_dir", "--data.data_dir")
TRIALS = 20

_EXAMPLES = """--config configs/mlp.yaml --space configs/sweeps/mlp.yaml --trials 30
--configs configs/mlp.yaml configs/deep_cnn.yaml --seeds 1..5"""

_DESCRIPTION = (
    "Search for the options with the highest val/accuracy (--space), or train files with several "
    "seeds (--configs). Each trial is a run. Repeat the same command to continue a sweep."
)


def make_parser() -> ExperimentParser:
    """Return the parser of the command."""
    parser = ExperimentParser("sweep", _DESCRIPTION, _EXAMPLES)
    parser.add_argument("--space", type=Path, metavar="FILE", help=_SPACE_HELP)
    configs_help = "train each file with each seed; no search"
    parser.add_argument("--configs", nargs="+", action="extend", metavar="FILE", help=configs_help)
    seeds_help = "seeds for --configs (1..5 or 1,2,7)"
    parser.add_argument("--seeds", type=read_seeds, metavar="1..5", help=seeds_help)
    trials_help = f"number of trials (default: {TRIALS}; of a grid: all)"
    parser.add_argument("--trials", type=int, metavar="N", help=trials_help)
    workers_help = "trials in parallel (default: 1)"
    parser.add_argument("--workers", type=int, default=1, metavar="N", help=workers_help)
    parser.add_argument("--name", help="name of the sweep (default: that of its file)")
    sampler_help = "grid tries each combination once (default: tpe)"
    parser.add_argument("--sampler", choices=SAMPLERS, help=sampler_help)
    pruner_help = "ends bad trials early (default: asha; grid: none)"
    parser.add_argument("--pruner", choices=studies.PRUNERS, help=pruner_help)
    parser.add_argument("--seed", type=int, help="seed of the sampler (default: 1)")
    parser.add_argument("--storage", metavar="URL", help=_STORAGE_HELP)
    init_help = "start each trial from the weights of this run's best checkpoint"
    parser.add_argument("--init_from", metavar="RUN", help=init_help)
    for name in OF_ONE_RUN:  # known, so that `main` can say why they are refused
        parser.add_argument(f"--{name}", help=SUPPRESS)
    return parser


def main(arguments: list[str]) -> int:
    """Run trials until there are as many as requested."""
    parser = make_parser()
    options, rest = parser.split(arguments)
    _check_options(options, rest)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("optuna").propagate = False
    space = _make_space(options, rest)

    def make_cli(values: Mapping[str, Any]) -> DigitCLI:
        """Return a trial's experiment."""
        return DigitCLI(parser, add_options(rest, values), trust=options.trust)

    points = _points_to_check(space, options.configs)
    batches = [_check_experiment(make_cli, values) for values in points.values()]
    fit_options = list(rest)
    if options.init_from is not None:
        fit_options += ["--init_from", options.init_from]
    trial_options = [*fit_options, *["--trust"] * options.trust]
    if any(batches):
        return sweep_dev_run.try_points(points, trial_options, max(batches))
    if options.configs is None:
        trial_options += ["--trainer.limit_test_batches=0"]
    trial_options += ["--auto_resume=false"]
    how = _study_options(options)
    folder = _create_folder(options.root, how.name)
    given = os.environ.get("OMP_NUM_THREADS", "")  # the trials use it
    threads = int(given) if given.isdecimal() else max(1, (os.cpu_count() or 1) // options.workers)
    trials = (options.trials or TRIALS) if space.points is None else len(space.points)
    sizes = (threads, trials, options.workers)
    plan = Plan(space, trial_options, options.root, folder, *sizes)
    stop, report = Event(), partial(console.show_line, console.make_console())
    with studies.report_damage(options.storage or str(folder)):
        digest = _digest(space, fit_options, options.configs or ())
        study = studies.open_study(how, folder, digest, options.trust, stop, report)
        status = sweep_progress.search(study, plan, stop)
        if status:
            return status
        if options.configs is not None:
            return sweep_configs.show_results(study, plan)
        return _show_best(study, plan, make_cli)


def _check_options(options: Namespace, rest: Sequence[str]) -> None:
    """Refuse options of the command that are invalid, or cannot be combined."""
    if options.workers < 1 or (options.trials is not None and options.trials < 1):
        raise UserError("--trials and --workers must be at least 1", status=2)
    for name in OF_ONE_RUN:
        if getattr(options, name) is not None:
            raise UserError(f"--{name} is for one run, a sweep creates many: omit --{name}", 2)
    if options.configs is None:
        if options.seeds is not None:
            problem = "--seeds needs --configs: the files to train with each seed"
            fix = "give them instead of --space"
            raise UserError(f"{problem}; {fix}, or omit --seeds", status=2)
        if options.space is None:
            fix = "give a search space, or files to compare with --configs"
            raise UserError(f"--space is missing; {fix}", status=2)
        return
    for name in OF_A_SEARCH:
        if getattr(options, name) is not None:
            problem = f"--{name} is for a search, --configs trains each file with each of --seeds"
            raise UserError(f"{problem}: omit one of them", status=2)
    given = {word.partition("=")[0] for word in rest}
    if given & {"--config", "-c"}:
        raise UserError("both --configs and --config are given; give all files to --configs", 2)
    if options.seeds is not None and "--seed_everything" in given:
        raise UserError("both --seeds and --seed_everything are given; give only one", status=2)


def _make_space(options: Namespace, rest: list[str]) -> SearchSpace:
    """Return the search space of the command."""
    if options.configs is not None:
        return sweep_configs.make_space(options.configs, options.seeds)
    options.space = find_file("--space", str(options.space))
    space = search_space.read(options.space)
    if not options.trust:
        refuse_foreign_space(space, options.space, rest)
    if options.sampler == "grid":
        return space._replace(points=space.grid()[: options.trials])
    return space


def _points_to_check(
    space: SearchSpace, configs: Sequence[str] | None
) -> dict[str, Mapping[str, Any]]:
    """Return a point with each config, or else one point, by the name to show."""
    if configs is not None and space.points is not None:
        first = {point["config"]: point for point in reversed(space.points)}
        return {name: first[config] for config, name in sweep_configs.labels(configs).items()}
    return {results.values(space.example): space.example}


def _check_experiment(
    make_cli: Callable[[Mapping[str, Any]], DigitCLI], values: Mapping[str, Any]
) -> int:
    """Report mistakes before any trial: later, a trial that fails does not stop the others.

    Returns:
        The number of batches of `fast_dev_run`.
    """
    try:
        config = make_cli(values).config
        if is_unbounded(config):
            raise UserError("A sweep needs runs of limited length: give --trainer.max_epochs", 2)
        if 0 in (config.data.val_size, config.trainer.limit_val_batches):
            problem = "A sweep compares by the validation set, which is empty"
            raise UserError(f"{problem}: give --data.val_size 5000", status=2)
    except UserError as error:
        if "config" in values:
            raise UserError(f"--configs {values['config']}: {error}", error.status) from None
        raise
    return int(config.trainer.fast_dev_run)


def _study_options(options: Namespace) -> studies.StudyOptions:
    """Return how the study is stored and searched.

    Raises:
        UserError: the name of the sweep is invalid.
    """
    is_list = options.configs is not None or options.sampler == "grid"
    if options.configs is not None:
        name = options.name or sweep_configs.default_name(options.configs)
    else:
        name = options.name or options.space.stem
    if not re.fullmatch(r"\w[\w. -]{0,99}", name):
        raise UserError(
            f"--name: invalid value {name}; use only letters, digits, '.', '-', '_'", status=2
        )
    sampler = "grid" if is_list else options.sampler or "tpe"
    pruner = options.pruner or ("none" if is_list else "asha")
    seed = 1 if options.seed is None else options.seed
    return studies.StudyOptions(name, options.storage, sampler, pruner, seed)


def _create_folder(root: Path, name: str) -> Path:
    """Create the sweep's folder."""
    folder = root / "sweeps" / name
    files.refuse_linked_folders(folder, root)
    files.refuse_links(folder, ("",))
    files.create_folder(folder, "--trainer.default_root_dir")
    return folder


_SPACE_HELP = (
    "a YAML file with a line per option, such as `data.batch_size: {choice: [32, 64]}`; also "
    "`{log_uniform: [1e-4, 1e-1]}`, uniform, int, log_int"
)

_STORAGE_HELP = "a database or a FILE.journal, which several machines may share (default: SQLite)"


def _digest(space: SearchSpace, options: list[str], configs: Sequence[str]) -> str:
    """Identify a sweep by its space, its options, and the content of the files that they name.

    The seeds of configs are not a part: a sweep over configs may continue with more seeds. Nor are
    the folders of a machine: several machines may share a study.
    """
    options = _omit(options, OF_A_MACHINE)
    named = [word for config in configs for word in ("--config", config)]
    contents = read_files([*named, *options], lambda path, section: files.read_yaml(path))
    parts = [json.dumps(space.ranges), json.dumps(options), *contents]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _omit(options: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the options without some of them and their values."""
    kept: list[str] = []
    is_value = False
    for word in options:
        is_omitted = word.partition("=")[0] in names
        if not (is_omitted or is_value):
            kept.append(word)
        is_value = is_omitted and "=" not in word
    return kept


def _show_best(
    study: optuna.Study, plan: Plan, make_cli: Callable[[Mapping[str, Any]], DigitCLI]
) -> int:
    """Show the best trial; write its configuration and the plots."""
    out = console.make_console()
    best, folder = results.best_trial(study), plan.folder
    if best is None:
        raise UserError(f"No trial finished. See the errors in {folder}/trial_*.log.")
    if not plan.space.contains(best.params):
        raise UserError(f"trial {best.number} has parameters outside the space")
    console.show_line(out, f"best: {results.format_trial(best)}")
    cli = make_cli(best.params)
    cli.load_data()
    config = cli.complete_config()
    config["trainer"]["limit_test_batches"] = None  # trials omit the test
    for path in results.write(study, best, config, folder):
        console.show_line(out, f"  {path}")
    # With the same number of threads the run equals the trial bit by bit.
    again = f"{PROGRAM} fit --config {shlex.quote(str(folder / 'best.yaml'))}"
    console.show_next_commands(out, [f"OMP_NUM_THREADS={plan.threads} {again}"])
    return 0
