"""Parse the options of a command with LightningCLI; make its data, model and trainers."""

import logging
import re
import warnings
from argparse import ArgumentError
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import set_parsing_settings
from jsonargparse.typing import NonNegativeFloat, PositiveInt
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from mnist_lightning import distributed
from mnist_lightning.cli import error_messages
from mnist_lightning.cli.parser import NamedClasses, as_argument, runs_root, take_option
from mnist_lightning.cli.trust import TrustedConfig, read_settings
from mnist_lightning.data.datamodule import FallbackWarning, MNISTDataModule, SkippedWarning
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.runs.config_schema import find_null
from mnist_lightning.runs.imports import import_paths, imported_paths
from mnist_lightning.training.callbacks.tensorboard import Level
from mnist_lightning.training.lightning_module import DigitClassifier
from mnist_lightning.training.registry import USER_SCHEMA
from mnist_lightning.training.trainer import TRAINER_DEFAULTS, RunTrainer
from mnist_lightning.training.trainer_factory import TrainerFactory

# Options that a command reads before the parser. No configuration contains them.
COMMAND_OPTIONS = {
    "fit": ("seeds", "ckpt_path", "init_from", "run_dir", "trust"),
    "resume": ("trust",),
    "test": ("each_image", "shifts", "ckpt_path", "trust"),
    "validate": ("each_image", "shifts", "ckpt_path", "trust"),
}
MAX_EPOCHS = 10  # unless max_epochs or max_steps is given
# By its name alone, the parser finds Lightning's class of the same name.
_PLATEAU = "torch.optim.lr_scheduler.ReduceLROnPlateau"


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
    """Parses the options of a command; makes its data, its model and its trainers.

    Args:
        command: the name of the command, for its help and its errors.
        arguments: the options of the command; they override those of `base`.
        description: the first lines of its help.
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
        command: str,
        arguments: list[str],
        description: str = "",
        base: TrustedConfig | None = None,
        trust: bool = False,
    ) -> None:
        self.command = command
        allowed, arguments = read_settings(arguments, trust)
        self.own = base is None or base.own
        self._may_download = self.own
        if base is not None:
            allowed = NamedClasses(*(a | b for a, b in zip(allowed, base.allowed, strict=True)))
            self._may_download |= take_option("--data.data_dir", arguments)[0] is not None
            arguments = [*as_argument(base.content), *arguments]
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
                "prog": f"{PROGRAM} {command}",
                "description": description,
                "exit_on_error": False,
                "allow_abbrev": False,
            },
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of a run; name the default network, so that configs are complete."""
        network = {"class_path": "mnist_lightning.networks.classic_cnn.ClassicCNN", "init_args": {}}
        parser.set_defaults({"model.network": network})

        parser.add_argument(
            "--log_lines",
            type=PositiveInt | None,
            default=None,
            help="Print the loss every so many batches.",
        )
        parser.add_argument(
            "--auto_resume",
            type=bool,
            default=False,
            help="Resume the newest run with the same options, if there is one.",
        )
        parser.add_argument(
            "--autosave",
            type=NonNegativeFloat | None,
            default=None,
            metavar="MINUTES",
            help="Save every so many minutes, also within an epoch.",
        )
        parser.add_argument(
            "--dashboards",
            type=Level,
            default="basic",
            help="What TensorBoard shows besides curves; `full` takes more time.",
        )
        parser.add_argument(
            "--keep_last",
            type=PositiveInt,
            default=3,
            help="How many of the newest checkpoints to keep, besides the best.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the options into `config`.

        Raises:
            UserError: an option is unknown or has an invalid value.
        """
        words = [re.sub(r"^(.*=)?ReduceLROnPlateau$", rf"\1{_PLATEAU}", word) for word in args]
        try:
            self.config = parser.parse_args(words)
            if (null := find_null(self.config, USER_SCHEMA)) is not None:
                raise UserError(
                    f"--{null}: null is not allowed; give a value or omit the option", 2
                )
            if self._reset_class_defaults(parser):
                self.config = parser.parse_args(words)
        except (ArgumentError, UnicodeDecodeError) as error:
            keys = parser.get_defaults().keys()
            names = [key.removesuffix(".class_path") for key in keys]
            options = [*names, *COMMAND_OPTIONS.get(self.command, ())]
            raise UserError(
                error_messages.explain(str(error), options, self.command), status=2
            ) from None
        trainer = self.config.trainer
        if trainer.max_epochs is None:
            trainer.max_epochs = MAX_EPOCHS if trainer.max_steps == -1 else -1

    def _reset_class_defaults(self, parser: LightningArgumentParser) -> bool:
        """Make the requested classes the defaults; return whether any default changed.

        Otherwise the parser passes arguments of the old default on to the new class if it has
        arguments of the same names: ClassicCNN's dropout, Adam's weight_decay.
        """
        sections = {key: self.config[key] for key in ("model.network", "model.optimizer")}
        requested = {key: section.class_path for key, section in sections.items() if section}
        changed = {
            key: {"class_path": path}
            for key, path in requested.items()
            if path != parser.get_default(key)["class_path"]
        }
        parser.set_defaults(changed)
        return bool(changed)

    def instantiate_classes(self) -> None:
        """Make the data, the model and the factory of trainers.

        Raises:
            UserError: one of them, the optimizer or its schedule does not accept its arguments.
        """
        try:
            self.config_init = self.parser.instantiate(self.config)
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise UserError(error_messages.explain_class_error(error), status=2) from None
        self.datamodule, self.model = self.config_init.data, self.config_init.model
        self.make_trainer = TrainerFactory({**self.config_init.trainer}, sign=self.own)
        option = "optimizer"
        try:
            optimizer = self.model.optimizer_factory(self.model.network.parameters())
            option = "lr_scheduler"
            self.model.make_schedule(optimizer, total_steps=1000)
        except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
            reason = " ".join(str(error).split())
            if "only supports 2D parameters" in reason:
                reason += "; use AdamW or SGD"
            raise UserError(f"--model.{option}: {reason}", status=2) from None

    def complete_config(self) -> dict[str, Any]:
        """Return the complete configuration as plain values, with the data set for `auto`."""
        config: dict[str, Any] = yaml.safe_load(self.parser.dump(self.config, skip_unset=False))
        config["data"]["dataset"] = self.datamodule.data.name
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


# Warnings of Lightning about intended behavior.
_IGNORED_WARNINGS = (
    ".*smaller than the logging interval",
    ".*callbacks used to create the checkpoint need",  # a test needs no callbacks
    "GPU available but not used",  # the user chose it
    ".*but have no logger configured",  # an evaluation prints its metrics
    "The dirpath has changed from",  # a test of a checkpoint from a stock Trainer
    "Total length of `list` across ranks is zero",  # no validation set: `show_start` reports it
    ".*It is recommended to use .self.log.*sync_dist",  # the means are over all processes
    ".*`srun` command is available on your system",  # the user may not want it
    ".*LeafSpec.* is deprecated",  # lightning's own call
)


def configure_warnings() -> None:
    """Hide the messages of the framework that do not apply here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for category in (FallbackWarning, SkippedWarning):  # `show_data_notices` reports them
        warnings.filterwarnings("ignore", category=category)
    for text in _IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", text)
