"""Decide which configurations may be parsed, and which classes they may import.

See `docs/decisions/trust.md`: a file of a run counts as the user's own if it is signed, or if the
user says so by `--trust`; any other file is data from elsewhere.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mnist_lightning.cli.parser import NamedClasses, named_classes, read_files
from mnist_lightning.errors import UserError
from mnist_lightning.files import read_yaml
from mnist_lightning.networks.registry import ARCHITECTURES, REGISTERED, check_weights
from mnist_lightning.runs import trusted_directories
from mnist_lightning.runs.checkpoint import network_weights
from mnist_lightning.runs.class_names import argument_names, class_names, hidden_structure
from mnist_lightning.runs.config import Config, portable, refuse_large_batches
from mnist_lightning.runs.config_schema import Schema, check_config, foreign_classes, untrusted
from mnist_lightning.runs.former_versions import upgrade_names
from mnist_lightning.training.registry import SCHEMA, USER_SCHEMA

MAX_REASON = 300  # characters


class TrustedConfig(NamedTuple):
    """A configuration that was compared with its schema.

    Attributes:
        content: what it sets.
        allowed: what it may import beside the registered classes.
        own: whether it is the user's own; if not, it decides nothing about this machine.
    """

    content: Config
    allowed: NamedClasses = NamedClasses(frozenset(), frozenset())
    own: bool = True


def trusted_config(
    config: Config, signed: bool, trust: bool, arguments: Sequence[str]
) -> TrustedConfig:
    """Check the configuration of a run before it is parsed.

    Args:
        config: as a checkpoint or a `config.yaml` holds it.
        signed: whether this user's program wrote that file; it is valid then.
        trust: whether the user trusts whoever wrote it.
        arguments: of the command, which may name classes.

    Raises:
        InvalidConfigError: it holds something that no configuration has.
        UserError: it names a class without consent.
    """
    named = named_classes(arguments)
    if trust:
        allowed = _with_names_of(config, named)
        if not signed:
            check_config(config, USER_SCHEMA, allowed.classes)
        trusted_directories.remember_if(bool(allowed.classes - USER_SCHEMA.components.keys()))
        return TrustedConfig(config, allowed)
    if signed:
        # The signature says who made the run, not whose `net.py` lies in this directory.
        foreign = foreign_classes(config, USER_SCHEMA, named.classes)
        if foreign and not trusted_directories.is_known():
            raise UserError(_from_unknown_directory(foreign[0]))
        return TrustedConfig(config, _with_names_of(config, named))
    content = portable(config) if isinstance(config, dict) else config
    check_config(content, SCHEMA, named.classes)
    refuse_large_batches(content)
    return TrustedConfig(content, named, own=False)


def read_settings(arguments: Sequence[str], trust: bool) -> tuple[NamedClasses, list[str]]:
    """Read the files of settings that a command names; collect the classes that it allows.

    Returns:
        The classes, and the command's arguments with the content of each file in its place.

    Raises:
        UserError: a file names a class that the command does not, without `--trust`.
    """
    named = named_classes(arguments)
    allowed = [named]

    def read(path: Path, section: str) -> dict[str, Any]:
        content = upgrade_names(read_yaml(path))
        if not isinstance(content, dict):
            raise UserError(f"{path} is no mapping of options to values", status=2)
        whole = {section: content} if section else content
        if trust:
            allowed.append(_with_names_of(whole, named))
        else:
            refuse_foreign(whole, str(path), named)
        return content

    inline = read_files(arguments, read)
    classes, others = (frozenset().union(*each) for each in zip(*allowed, strict=True))
    trusted_directories.remember_if(bool(classes - USER_SCHEMA.components.keys()))
    return NamedClasses(classes, others), inline


def refuse_foreign(
    content: Any, where: str, named: NamedClasses, schema: Schema = USER_SCHEMA
) -> None:
    """Refuse settings that name a class without consent, or hide one in a text.

    Raises:
        UserError: they do.
    """
    if foreign := foreign_classes(content, schema, named.classes):
        raise UserError(untrusted(foreign[0], where), status=2)
    if hidden := hidden_structure(content):
        raise UserError(
            f"{where} hides a structure in a text at {hidden}; write it as YAML, or add --trust",
            status=2,
        )


@contextmanager
def blame(path: Path, own: bool) -> Iterator[None]:
    """Say of what fails by a file from elsewhere that it is the file's fault, not a bug here.

    Raises:
        UserError: in place of any error that is no `UserError` and not of the system.
    """
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        if own:
            raise
        reason = " ".join(f"{type(error).__name__} {error}".split())[:MAX_REASON]
        raise UserError(f"{path} is from elsewhere, and does not fit: {reason}") from error


def _from_unknown_directory(name: str) -> str:
    return (
        f"your run references the class {name}, and you have not used classes of your own in this "
        f"directory yet; name it in this command (--model.network {name}), or add --trust"
    )


def _with_names_of(config: Config, named: NamedClasses) -> NamedClasses:
    return NamedClasses(
        named.classes | class_names(config),
        named.arguments | argument_names(config, USER_SCHEMA.components),
    )


def check_network(base: TrustedConfig, checkpoint: dict[str, Any]) -> None:
    """Compare the network of a run from elsewhere with its weights, before it is built.

    Raises:
        UserError: the weights are those of another network.
    """
    network = base.content.get("model", {}).get("network")
    if (
        not base.own
        and isinstance(network, dict)
        and network["class_path"] in ARCHITECTURES | REGISTERED
    ):
        check_weights(network, network_weights(checkpoint))
