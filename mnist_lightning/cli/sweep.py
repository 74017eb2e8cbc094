"""The command `sweep`: search for the options with the highest validation accuracy."""

import hashlib
import json
import logging
import os
import re
import shlex
from argparse import SUPPRESS
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState
from rich.live import Live
from rich.table import Table

from mnist_lightning import files
from mnist_lightning.cli import console
from mnist_lightning.cli.lightning_cli import DigitCLI, ExperimentParser
from mnist_lightning.cli.parser import find_file, named_classes, read_files
from mnist_lightning.cli.suggestions import closest_option
from mnist_lightning.cli.trust import refuse_foreign
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.runs.class_names import nest_options
from mnist_lightning.runs.config import MACHINE_OPTIONS, is_unbounded
from mnist_lightning.text import plural, printable
from mnist_lightning.training.registry import SCHEMA
from mnist_lightning.tuning import results, search_space
from mnist_lightning.tuning import study as studies
from mnist_lightning.tuning.trial_runner import Plan

OF_ONE_RUN = ("seeds", "ckpt_path", "run_dir")  # options of `fit`
SHOWN_TRIALS = 12  # the newest, on a terminal
# A sweep cannot vary how this machine works, where it writes, and whom it trusts.
NOT_SEARCHED = {*MACHINE_OPTIONS, "data.data_dir", "config", "ckpt_path", "run_dir", "init_from"}
NOT_SEARCHED |= {"seeds", "trust", "keep_last"}


def make_parser() -> ExperimentParser:
    """Return the parser of the command."""
    parser = ExperimentParser(
        "sweep",
        "Search for the options with the highest val/accuracy. Each trial is a run of its own. "
        "Repeat the same command to continue an interrupted sweep.",
        "--config configs/mlp.yaml --space configs/sweeps/mlp.yaml --trials 30",
    )
    parser.add_argument("--space", type=Path, required=True, metavar="FILE", help=_SPACE_HELP)
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="(default: 20)")
    workers_help = "trials in parallel (default: 1)"
    parser.add_argument("--workers", type=int, default=1, metavar="N", help=workers_help)
    parser.add_argument("--name", help="name of the sweep (default: that of the --space file)")
    parser.add_argument("--sampler", choices=studies.SAMPLERS, default="tpe", help="(default: tpe)")
    parser.add_argument("--pruner", choices=studies.PRUNERS, default="asha", help="(default: asha)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the sampler (default: 1)")
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
    if options.trials < 1 or options.workers < 1:
        raise UserError("--trials and --workers must be at least 1", status=2)
    for name in OF_ONE_RUN:
        if getattr(options, name) is not None:
            raise UserError(f"--{name} is for one run, a sweep creates many: omit --{name}", 2)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("optuna").propagate = False
    options.space = find_file("--space", str(options.space))
    space = search_space.read(options.space)
    if not options.trust:
        refuse_foreign_space(space, options.space, rest)

    def make_cli(values: dict[str, Any]) -> DigitCLI:
        """Return a trial's experiment."""
        return DigitCLI(parser, [*rest, *search_space.as_options(values)], trust=options.trust)

    _refuse_invalid_options(make_cli(space.example))
    name = options.name or options.space.stem
    if not re.fullmatch(r"\w[\w. -]{0,99}", name):
        raise UserError(
            f"--name: invalid value {name}; use only letters, digits, '.', '-', '_'", status=2
        )
    root = options.root
    folder = root / "sweeps" / name
    files.refuse_linked_folders(folder, root)
    files.refuse_links(folder, ("",))
    files.create_folder(folder, "--trainer.default_root_dir")
    fit_options = list(rest)
    if options.init_from is not None:
        fit_options += ["--init_from", options.init_from]
    trial_options = [*fit_options, *["--trust"] * options.trust]
    trial_options += ["--trainer.limit_test_batches=0", "--auto_resume=false"]
    threads = max(1, (os.cpu_count() or 1) // options.workers)
    plan = Plan(space, trial_options, root, folder, threads, options.trials, options.workers)
    how = studies.StudyOptions(name, options.storage, options.sampler, options.pruner, options.seed)
    with studies.report_damage(options.storage or str(folder)):
        study = studies.open_study(how, folder, _digest(space, fit_options), options.trust)
        status = _search(study, plan)
        return _show_outcome(study, plan, make_cli, status)


_SPACE_HELP = (
    "a YAML file with a line per option: `model.optimizer.init_args.lr: {log_uniform: [1e-4, "
    "1e-1]}`; also uniform, int, log_int, and `{choice: [a, b]}`"
)

_STORAGE_HELP = (
    "a database, or a file FILE.journal that several machines share (default: SQLite in the "
    "directory of the sweep)"
)


def refuse_foreign_space(space: search_space.SearchSpace, path: Path, arguments: list[str]) -> None:
    """Refuse a space that names classes without consent, or options of this machine.

    Args:
        space: the content of the file.
        path: the file.
        arguments: of the command, without the space.

    Raises:
        UserError: it does.
    """
    where, named = f"--space {path}", named_classes(arguments)
    for name, values in space.ranges.items():
        machine = next((each for each in NOT_SEARCHED if f"{name}.".startswith(f"{each}.")), None)
        if machine is not None:
            raise UserError(f"{where}: a sweep cannot vary {machine}; give it in the command", 2)
        if not _is_option(name):
            sections = SCHEMA.sections.items()
            options = [f"{section}.{option}" for section, names in sections for option in names]
            similar = closest_option(name, options)
            raise UserError(f"{where}: unknown option {name}{similar}", status=2)
        for value in values.values:
            refuse_foreign(nest_options({name: _parsed(value)}), where, named, SCHEMA)


def _is_option(name: str) -> bool:
    """Return whether a name is an option, such as `data.seed`, or an argument of its class.

    `model.network.help` is not: the parser imports the class whose help is requested.
    """
    parts = name.removesuffix("+").split(".")
    section, option = ("", parts[0]) if len(parts) == 1 else parts[:2]
    return option in SCHEMA.sections.get(section, {}) and parts[-1] != "help"


def _parsed(value: Any) -> Any:
    """Return the meaning of an option's value: a text may be a structure in YAML."""
    try:
        parsed = files.parse_yaml(value) if isinstance(value, str) else value
    except (files.LimitError, ValueError, yaml.YAMLError):
        return value
    return parsed if isinstance(parsed, dict | list) else value


def _refuse_invalid_options(cli: DigitCLI) -> None:
    """Report mistakes before any trial: later, a trial that fails does not stop the others."""
    if is_unbounded(cli.config):
        raise UserError("A sweep needs runs of limited length: give --trainer.max_epochs", status=2)
    if 0 in (cli.config.data.val_size, cli.config.trainer.limit_val_batches):
        problem = "A sweep selects by the validation set, which is empty"
        raise UserError(f"{problem}: give --data.val_size 5000", status=2)


def _digest(space: search_space.SearchSpace, options: list[str]) -> str:
    """Identify a sweep by its space, its options, and the content of the files that they name."""
    contents = read_files(options, lambda path, section: files.read_yaml(path))
    parts = [json.dumps(space.ranges), json.dumps(options), *contents]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _search(study: optuna.Study, plan: Plan) -> int:
    """Run the trials; show them as a table on a terminal, else as lines."""
    out = console.make_console()
    before = len(study.get_trials(deepcopy=False))
    known = f", {before} of them started before" if before else ""
    trials = f"{plural(plan.trials, 'trial')}{known}, {plan.workers} in parallel"
    console.show_line(out, f"sweep {study.study_name}: {trials}")

    def show_end(trial: FrozenTrial) -> None:
        if not out.is_terminal:
            console.show_line(out, results.format_trial(trial))

    with Live(console=out, auto_refresh=False, transient=True) as live:

        def refresh() -> None:
            if out.is_terminal:
                live.update(_table(study, plan.trials), refresh=True)

        status = studies.search(study, plan, show_end, refresh)
    if out.is_terminal:
        out.print(_table(study, len(study.trials)))
    return status


def _table(study: optuna.Study, count: int) -> Table:
    """Show the newest trials and the best one."""
    trials = study.get_trials(deepcopy=False)
    ended = sum(trial.state.is_finished() for trial in trials)
    best = results.best_trial(study)
    texts = ["state", "values", "run"]
    table = console.make_table(f"{ended} of {plural(count, 'trial')}", ["trial", *texts], texts)
    shown = trials[-SHOWN_TRIALS:]
    if best is not None and best.number not in [trial.number for trial in shown]:
        shown = [best, *shown[1:]]
    for trial in shown:
        cells = (results.state(trial), results.values(trial.params), results.run_name(trial))
        style = "bold green" if best is not None and trial.number == best.number else ""
        table.add_row(str(trial.number), *map(printable, cells), style=style)
    return table


def _show_outcome(
    study: optuna.Study, plan: Plan, make_cli: Callable[[dict[str, Any]], DigitCLI], status: int
) -> int:
    """Show the number of trials and the best one; write its configuration and the plots."""
    out = console.make_console()
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    words = {
        TrialState.COMPLETE: "finished",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
        TrialState.RUNNING: "to be continued",
    }
    counts = [f"{states.count(each)} {word}" for each, word in words.items() if each in states]
    console.show_line(out, f"{plural(len(states), 'trial')}: {', '.join(counts)}")
    if status:
        console.show_line(out, "Interrupted. Repeat the command to continue.")
        return status
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
