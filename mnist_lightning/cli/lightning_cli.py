"""Parse the options of a command with LightningCLI; make its data, model and trainers."""

import json
from argparse import SUPPRESS, ArgumentError, Namespace
from pathlib import Path
from typing import Any

from jsonargparse import set_parsing_settings
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from mnist_lightning import distributed
from mnist_lightning.cli import error_messages
from mnist_lightning.cli.class_paths import use_class_paths, use_dict_kwargs
from mnist_lightning.cli.framework_messages import configure_warnings
from mnist_lightning.cli.parser import CommandParser, NamedClasses, option_value, runs_root
from mnist_lightning.cli.trust import TrustedConfig, read_settings
from mnist_lightning.data.datamodule import MNISTDataModule
from mnist_lightning.errors import UserError
from mnist_lightning.files import LimitError, parse_yaml
from mnist_lightning.networks import registry as networks
from mnist_lightning.runs.config import check_storable
from mnist_lightning.runs.config_schema import find_null
from mnist_lightning.runs.imports import import_allowed, import_paths, imported_paths
from mnist_lightning.training.lightning_module import DEFAULT_OPTIMIZER, DigitClassifier
from mnist_lightning.training.lr_schedules import take_trial_step
from mnist_lightning.training.precision import use_fast_precision
from mnist_lightning.training.registry import RUN_OPTIONS, USER_SCHEMA
from mnist_lightning.training.trainer import TRAINER_DEFAULTS, RunTrainer
from mnist_lightning.training.trainer_factory import TrainerFactory

MAX_EPOCHS = 10  # unless max_epochs or max_steps is given


class ExperimentParser(CommandParser):
    """Parses a command's own options, and returns those of its experiment for `DigitCLI`.

    Args:
        command: its name.
        description: what it does.
        example: the rest of a command line.
        takes_run: whether a RUN may follow the command; `--ckpt_path FILE` is the same.
    """

    def __init__(
        self, command: str, description: str = "", example: str = "", takes_run: bool = False
    ) -> None:
        super().__init__(command, description, example)
        self.usage = f"{self.prog} {'[RUN] ' * takes_run}[options]"
        self.takes_run = takes_run
        if takes_run:
            self.add_argument("--ckpt_path", dest="run", metavar="FILE", help="the same as RUN")
        text = "trust files from other people or machines, and the classes in these files"
        self.add_argument("--trust", action="store_true", help=text)

    def split(self, arguments: list[str]) -> tuple[Namespace, list[str]]:
        """Parse the command's own options; return them, and the options of the experiment.

        Among them is `root`, the directory of the runs, although the experiment has it too.

        Raises:
            UserError: an option is invalid.
        """
        options, rest = self.parse_known_args(arguments)
        if self.takes_run and rest and not rest[0].startswith("-"):
            if options.run is not None:
                both = f"both RUN {rest[0]} and --ckpt_path {options.run} are given"
                raise UserError(f"{both}; give only one", 2)
            options.run = rest.pop(0)
        if self.takes_run and options.run == "":
            raise UserError("the RUN is empty; give a run directory or a checkpoint file", 2)
        options.root = runs_root(option_value("--trainer.default_root_dir", rest))
        return options, rest


class _Parser(LightningArgumentParser):
    """Reads no files: `read_settings` has replaced them by their content."""

    def add_class_arguments(self, *args: Any, **kwargs: Any) -> list[str]:
        """Add the arguments of a class."""
        names: list[str] = super().add_class_arguments(*args, **kwargs | {"sub_configs": False})
        return names

    def add_subclass_arguments(self, *args: Any, **kwargs: Any) -> None:
        """Add a class and its arguments."""
        super().add_subclass_arguments(*args, **kwargs | {"sub_configs": False})


class DigitCLI(LightningCLI):
    """Parses the options of an experiment; makes its data, its model and its trainers.

    Args:
        parser: the parser of the command's own options.
        arguments: the options of the experiment; they override those of `base`.
        base: the checked configuration of a run; None for a new run.
        trust: allow all classes that the `--config` files name.

    Raises:
        UserError: an option is unknown, a value is invalid, or a class needs the user's consent.
    """

    datamodule: MNISTDataModule
    model: DigitClassifier
    make_trainer: TrainerFactory
    own: bool  # whether the configuration is the user's; if not, it is not signed

    def __init__(
        self,
        parser: ExperimentParser,
        arguments: list[str],
        base: TrustedConfig | None = None,
        trust: bool = False,
    ) -> None:
        configure_warnings()
        self.command_parser = parser
        allowed, arguments = read_settings(arguments, trust)
        self.own = base is None or base.own
        self._is_new = base is None
        self._may_download = self.own
        if base is not None:
            allowed |= base.allowed
            self._may_download |= option_value("--data.data_dir", arguments) is not None
            arguments = ["--config", json.dumps(base.content), *arguments]
        _allow_imports(allowed)
        super().__init__(
            DigitClassifier,
            MNISTDataModule,
            trainer_class=RunTrainer,
            run=False,
            args=arguments,
            save_config_callback=None,
            seed_everything_default=42,
            trainer_defaults=TRAINER_DEFAULTS,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_class=_Parser,
            parser_kwargs={
                "prog": parser.prog,
                "usage": SUPPRESS,
                "description": "Options of the experiment, such as --trainer.max_epochs 3:",
                "exit_on_error": False,
                "allow_abbrev": False,
            },
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of a run; name the default classes, so that configs are complete."""
        network = {"class_path": "mnist_lightning.networks.classic_cnn.ClassicCNN", "init_args": {}}
        optimizer = {"class_path": "torch.optim.Adam", "init_args": DEFAULT_OPTIMIZER.keywords}
        parser.set_defaults({"model.network": network, "model.optimizer": optimizer})
        for name, (hint, default, text) in RUN_OPTIONS.items():
            parser.add_argument(f"--{name}", type=hint, default=default, help=text)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the options into `config`.

        Raises:
            UserError: an option is unknown or has an invalid value.
        """
        words = use_class_paths(args)
        try:
            words = self._parse(parser, words)
            if (null := find_null(self.config, USER_SCHEMA)) is not None:
                raise UserError(f"--{null}: null is not allowed; give a value or omit it", 2)
            if self._reset_class_defaults(parser):
                self.config = parser.parse_args(words)
        except (ArithmeticError, TypeError, ValueError) as error:  # a type's own, such as timedelta
            message = error_messages.explain_class_error(error)
            raise UserError(f"an option has an invalid value: {message}", status=2) from None
        except ArgumentError as error:
            keys = parser.get_defaults().keys()
            names = [key.removesuffix(".class_path") for key in keys]
            options = [*names, *self.command_parser.option_names]
            message = error_messages.explain(str(error), options, self.command_parser.command)
            raise UserError(message, status=2) from None
        check_storable(self.config.as_dict())
        trainer = self.config.trainer
        if trainer.max_epochs is None:
            trainer.max_epochs = MAX_EPOCHS if trainer.max_steps == -1 else -1
        if self._is_new and option_value("--trainer.precision", args) is None:
            use_fast_precision(trainer)

    def _parse(self, parser: LightningArgumentParser, words: list[str]) -> list[str]:
        """Parse words into `config`; return them, with `dict_kwargs` where these are needed.

        The parser does not know the names that a function takes as `**kwargs`, such as `in_chans`
        of timm.create_model.
        """
        try:
            self.config = parser.parse_args(words)
        except ArgumentError as error:
            changed = use_dict_kwargs(words, str(error))
            if changed is None:
                raise
            return self._parse(parser, changed)
        return words

    def _reset_class_defaults(self, parser: LightningArgumentParser) -> bool:
        """Make the requested classes the defaults; return whether any default changed.

        Otherwise the parser passes arguments of the old default on to the new class if it has
        arguments of the same names: ClassicCNN's dropout, Adam's weight_decay.
        """
        changed = {}
        for key in ("model.network", "model.optimizer"):
            section = self.config[key]
            if section and section.class_path != parser.get_default(key)["class_path"]:
                changed[key] = {"class_path": section.class_path}
        parser.set_defaults(changed)
        return bool(changed)

    def instantiate_classes(self) -> None:
        """Make the data, the model and the factory of trainers.

        Raises:
            UserError: one of them, the optimizer or its schedule does not accept its arguments.
        """
        try:
            self.config_init = self.parser.instantiate(self.config)
        except networks.NETWORK_ERRORS as error:
            network = self.config.model.network.as_dict()
            raise UserError(error_messages.explain_model_error(error, network), 2) from None
        self.datamodule, self.model = self.config_init.data, self.config_init.model
        self._remember_origin(self.config.model.as_dict()["network"])
        self.make_trainer = TrainerFactory({**self.config_init.trainer}, sign=self.own)
        option = "optimizer"
        try:
            optimizer = self.model.optimizer_factory(self.model.network.parameters())
            option = "lr_scheduler"
            take_trial_step(self.model.make_schedule(optimizer, total_steps=1000))
        except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            if "only supports 2D parameters" in reason:
                reason += "; use AdamW or SGD"
            raise UserError(f"--model.{option}: {reason}", status=2) from None

    def _remember_origin(self, spec: dict[str, Any]) -> None:
        """Remember the arguments of a network that is not one of this package."""
        factory = import_allowed(spec["class_path"])
        if networks.path_of(factory) not in networks.REGISTERED:
            arguments = {**(spec.get("init_args") or {}), **(spec.get("dict_kwargs") or {})}
            networks.remember_origin(self.model.network, factory, arguments)

    def complete_config(self) -> dict[str, Any]:
        """Return the complete configuration as plain values, with the data set for `auto`.

        Raises:
            UserError: it exceeds the limits with which it would be read again.
        """
        try:
            config: dict[str, Any] = parse_yaml(self.parser.dump(self.config, skip_unset=False))
        except LimitError as error:
            raise UserError(f"the options cannot be saved: {error}", status=2) from None
        except ValueError as error:
            raise UserError(error_messages.explain_class_error(error), status=2) from None
        config["data"]["dataset"] = self.datamodule.data.name
        path, needed = networks.describe(self.model.network).values()
        if path not in networks.REGISTERED and needed is not None:
            # Without its defaults: the parser could not read back those that are classes.
            network = config["model"]["network"]
            arguments = network.get("init_args") or {}
            network["init_args"] = {n: value for n, value in arguments.items() if n in needed}
        return config

    def load_data(self) -> None:
        """Read the data set, once; download it first if it is missing.

        Raises:
            UserError: it is damaged or cannot be downloaded.
        """
        if self._may_download:  # never write to a path from an untrusted file
            distributed.run_on_rank_zero(self.datamodule.prepare_data)
        self.datamodule.setup()

    @property
    def root(self) -> Path:
        """The directory of the runs."""
        return runs_root(self.config.trainer.default_root_dir)


def _allow_imports(allowed: NamedClasses) -> None:
    """Allow the parser to import the registered classes and these, and nothing else.

    The parser compares prefixes, for the whole process. So this is only a second check after
    that of `trust`.
    """
    registered = USER_SCHEMA.components.keys()
    foreign = {path for name in allowed.classes - registered for path in import_paths(name)}
    foreign |= {path for name in allowed.arguments for path in imported_paths(name)}
    set_parsing_settings(
        instantiate_subclass_spec_in_any=False,
        import_path_denylist=["*", *_allowed_before],
        import_path_allowlist=[*USER_SCHEMA.components, *foreign],
    )
    _allowed_before.clear()
    _allowed_before.update(foreign - registered)


_allowed_before: set[str] = set()  # for an earlier command in this process
