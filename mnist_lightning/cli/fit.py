"""The command `fit`: train a network, save its checkpoints, and test the best one."""

import hashlib
import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mnist_lightning import distributed
from mnist_lightning.cli import console, resume
from mnist_lightning.cli.lightning_cli import DigitCLI, ExperimentParser
from mnist_lightning.cli.parser import option_value, read_seeds
from mnist_lightning.cli.session import prepare, run_lock, start_loggers, train_and_show
from mnist_lightning.cli.watch_page import WatchPage, add_watch_option
from mnist_lightning.errors import UserError
from mnist_lightning.inference import load
from mnist_lightning.networks.registry import describe, is_described_by, parse_description
from mnist_lightning.runs import lookup, run_directory
from mnist_lightning.runs.checkpoint import network_weights, read_checkpoint, read_signed_checkpoint
from mnist_lightning.runs.class_names import class_names
from mnist_lightning.runs.config import is_unbounded
from mnist_lightning.runs.config_schema import check_config
from mnist_lightning.runs.recent_checkpoints import newest_checkpoint, progress
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.runs.signature import signing_key
from mnist_lightning.text import say
from mnist_lightning.training.distillation import Teacher
from mnist_lightning.training.registry import USER_SCHEMA

_EXAMPLES = """
--config configs/mlp.yaml --seeds 1..5
--model.network TinyCNN --model.optimizer SGD"""


def make_parser() -> ExperimentParser:
    """Return the parser of the command."""
    description = (
        "Train a network, save its best checkpoint, and test it. Without options: the network "
        "ClassicCNN, with Adam, for 10 epochs of MNIST."
    )
    parser = ExperimentParser("fit", description, _EXAMPLES)
    seeds_help = "train once per seed (1..5 or 1,2,7); show mean and standard deviation"
    parser.add_argument("--seeds", type=read_seeds, metavar="1..5", help=seeds_help)
    init_help = "start from the weights of a run's best checkpoint"
    parser.add_argument("--init_from", metavar="RUN", help=init_help)
    teacher_help = "train on the probabilities that a run's network predicts, not on the labels"
    parser.add_argument("--teacher", metavar="RUN", help=teacher_help)
    run_dir_help = "save the run in this directory (default: version_N)"
    parser.add_argument("--run_dir", type=Path, metavar="DIR", help=run_dir_help)
    add_watch_option(parser)
    ckpt_help = "resume from this checkpoint instead of a new run"
    parser.add_argument("--ckpt_path", metavar="FILE", help=ckpt_help)
    return parser


def main(arguments: list[str]) -> int:
    """Train a network, save its checkpoints, and test the best one; with `--seeds`, once each."""
    parser = make_parser()
    options, rest = parser.split(arguments)
    if options.ckpt_path is not None:
        names = ("seeds", "init_from", "teacher", "run_dir")
        if new := [name for name in names if getattr(options, name) is not None]:
            problem = f"--ckpt_path resumes a run, --{new[0]} starts a new run"
            raise UserError(f"{problem}: give only one", 2)
        switches = ["--trust"] * options.trust + ["--watch"] * options.watch
        return resume.main([options.ckpt_path, *rest, *switches])
    if options.seeds is not None and options.run_dir is not None:
        problem = "--seeds creates several runs, --run_dir is the directory of one run"
        raise UserError(f"{problem}: give only one", status=2)
    with WatchPage(options.watch) as page:
        if options.seeds is None:
            return _fit_once(parser, options, rest, page)[0]
        return _fit_each(parser, options, rest, page)


def _fit_each(
    parser: ExperimentParser, options: Namespace, arguments: list[str], page: WatchPage
) -> int:
    """Make a run with each seed; if one fails or is interrupted, show those before it."""
    if option_value("--seed_everything", arguments) is not None:
        raise UserError("both --seeds and --seed_everything are given; give only one", status=2)
    if len(options.seeds) == 1:
        say(f"one run, with the seed {options.seeds[0]}; for several: --seeds 1..5")
    finished: list[Run] = []
    try:
        for place, seed in enumerate(options.seeds, 1):
            each = [*arguments, "--seed_everything", str(seed)]
            status, run = _fit_once(parser, options, each, page)
            if status != 0:
                if left := options.seeds[place:]:
                    say(f"not trained yet: --seeds {','.join(map(str, left))}")
                return status
            if run is not None:
                finished.append(run)
    finally:
        console.show_seeds(console.make_console(), finished)
    return 0


def _fit_once(
    parser: ExperimentParser, options: Namespace, arguments: list[str], page: WatchPage
) -> tuple[int, Run | None]:
    """Make one run, or resume one with `--auto_resume`; return the exit status and the run."""
    init_from, run_dir, trust = options.init_from, options.run_dir, options.trust
    cli = DigitCLI(parser, arguments, trust=trust)
    if options.seeds is not None and is_unbounded(cli.config):
        raise UserError("--seeds needs runs of limited length: give --trainer.max_epochs", status=2)
    if cli.config.auto_resume and run_dir is not None:
        problem = "--run_dir starts a new run, --auto_resume may resume a run"
        raise UserError(f"{problem}: give only one", 2)
    if options.teacher is not None:
        load_teacher(cli, options.teacher)
    prepare(cli)
    origin = None if init_from is None else load_initial_weights(cli, init_from)
    if cli.config.trainer.fast_dev_run:
        return train_and_show(cli, None, page), None
    if cli.config.auto_resume:
        earlier = distributed.run_on_rank_zero(lambda: find_matching_run(cli, origin, trust))
        if earlier is not None:
            with run_lock(earlier):
                earlier.refuse_links()
                path = newest_checkpoint(earlier, move=distributed.is_rank_zero())
                checkpoint = read_checkpoint(path)
                return resume.continue_run(cli, earlier, path, checkpoint, page), earlier
    start_loggers(cli)
    run = distributed.run_on_rank_zero(
        lambda: run_directory.create_at(run_dir) if run_dir else run_directory.create_next(cli.root)
    )
    with run_lock(run):
        return train_and_show(cli, run, page, init_from=origin), run


def load_initial_weights(cli: DigitCLI, reference: str) -> str:
    """Load the weights of another run's network; return their path and digest.

    Raises:
        UserError: they are those of another network.
    """
    run, path = lookup.find(reference, cli.root)
    path = path or run.best_checkpoint()
    checkpoint = read_checkpoint(path)
    theirs, mine = checkpoint.get("network"), describe(cli.model.network)
    if theirs is None or not is_described_by(cli.model.network, theirs):
        needed = (
            _as_options(theirs, mine) if theirs else "another network (not described in the file)"
        )
        raise UserError(f"--init_from: network mismatch: {path} needs {needed}", status=2)
    try:
        cli.model.network.load_state_dict(network_weights(checkpoint))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        problem = f"--init_from: the weights in {path} do not match the network"
        raise UserError(f"{problem}: {reason}") from None
    say(f"initial weights: {path}")
    return f"{path} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def load_teacher(cli: DigitCLI, reference: str) -> None:
    """Train on the probabilities of another run's network, or of several.

    Raises:
        UserError: it is not an architecture of this package.
    """
    networks, sources = [], []
    with torch.random.fork_rng(devices=[]):  # training uses the same random numbers
        for name in lookup.expand_references(reference):
            recognizer = load(name, cli.root)
            networks.append(recognizer.network)
            sources.append(f"{recognizer.source} sha256:{_digest(recognizer.network)}")
        cli.model.teacher = Teacher(networks, ", ".join(sources))
    say(f"teacher: {', '.join(sources)}")


def _digest(network: nn.Module) -> str:
    weights = hashlib.sha256()
    for weight in network.state_dict().values():
        weights.update(weight.contiguous().numpy().tobytes())
    return weights.hexdigest()[:16]


def _as_options(network: dict[str, Any], other: dict[str, Any]) -> str:
    """Return the options that build a network, as far as they differ from those of `other`."""
    option, (class_path, arguments) = "--model.network", parse_description(network)
    arguments = arguments or {}
    named = [f"{option} {shlex.quote(class_path.rsplit('.', 1)[-1])}"]
    if class_path == other["class_path"]:
        named, theirs = [], other["init_args"] or {}
        arguments = {name: of for name, of in arguments.items() if of != theirs.get(name)}
    named += [shlex.join([f"{option}.{name}", str(of)]) for name, of in arguments.items()]
    return " ".join(named)


def find_matching_run(cli: DigitCLI, origin: str | None, trust: bool) -> Run | None:
    """Return the newest run with the same options that can be resumed; report skipped ones."""
    config = cli.complete_config()
    wanted, seed = config["trainer"], config["seed_everything"]
    teacher = None if cli.model.teacher is None else cli.model.teacher.source
    for run in reversed(run_directory.list_runs(cli.root)):
        if not run.config.is_file() or not any(run.checkpoints.glob("last*.ckpt")):
            continue
        facts = run.summary("seed", "init_from", "teacher")  # faster to read than its settings
        if facts.get("seed", seed) != seed or facts.get("init_from") != origin:
            continue
        if facts.get("teacher") != teacher:
            continue
        try:
            saved, own = run.read_signed_config()
            check_config(saved, USER_SCHEMA, class_names(saved))
            if resume.differences(cli, saved):
                continue
            newest, signed = read_signed_checkpoint(newest_checkpoint(run))
            if not trust and not (own and signed) and signing_key() is not None:
                raise UserError("the run was not made on this machine; add --trust to resume it")
            done = progress(newest)
        except UserError as error:
            say(f"skipped {run.folder}: {error}")
            continue
        # With another length or another test its results would differ.
        same_test = wanted["limit_test_batches"] == resume.option_of(saved, "limit_test_batches")
        if same_test and not 0 <= wanted["max_epochs"] < done.epochs + bool(done.batches):
            return run
    say("No matching run to resume; starting a new one.")
    return None
