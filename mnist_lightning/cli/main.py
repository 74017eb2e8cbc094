"""The table of commands: the module of a command is imported only when it runs."""

import atexit
import os
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, NoReturn

from mnist_lightning.errors import (
    MAX_MESSAGE_CHARS,
    PROGRAM,
    UserError,
    __version__,
    unsigned_files,
)
from mnist_lightning.text import printable, say


class Command(NamedTuple):
    """What a command takes and does; its module in `cli` has its name and a function `main`."""

    usage: str
    summary: str


COMMANDS = {
    "demo": Command("[--no-browser]", "draw a digit in the browser; a trained network reads it"),
    "fit": Command(
        "[--config FILE]… [--model.… --data.… --trainer.…]",
        "train a network, save its best checkpoint, and test it",
    ),
    "resume": Command("[RUN] [--trainer.max_epochs N]", "continue a run in its own directory"),
    "validate": Command("[RUN]", "evaluate a checkpoint on the validation set"),
    "test": Command("[RUN]", "evaluate a checkpoint on the test set"),
    "predict": Command(
        "IMAGE… [--run RUN] [--json | --csv] [--save_inputs DIR]", "read the digits in image files"
    ),
    "serve": Command(
        "[RUN] [--port N] [--collect DIR]",
        "serve a web page: draw or upload a digit, and see the network's input and prediction",
    ),
    "report": Command("[RUN]", "write the results of a run as one HTML page, with figures"),
    "runs": Command(
        "[RUN…] [--sort ORDER] [--json | --csv] [--png FILE]",
        "list the runs, or compare some of them",
    ),
    "export": Command(
        "[RUN] --format pth|safetensors|onnx|pt2|html [--output PATH]",
        "export the network to another format, and check the exported file",
    ),
    "sweep": Command(
        "--config FILE --space FILE [--trials N] [--workers N] [options of fit]",
        "search for the best hyperparameters with parallel runs",
    ),
    "verify": Command(
        "[--config FILE] [options of fit]",
        "check on this machine: data, determinism, and resume after a kill",
    ),
    "data": Command(
        "[NAME]… [--fetch]", "show where data sets are and whether they are complete; download them"
    ),
    "completion": Command("bash|zsh", "print a script for shell completion"),
}


_SUMMARIES = "\n".join(f"  {name:<10}  {command.summary}" for name, command in COMMANDS.items())
HELP = f"""usage: {PROGRAM} COMMAND [options]

Train, resume and test handwritten-digit classifiers.

commands:
{_SUMMARIES}

RUN is a run directory, a version number, a checkpoint file, `last`, `best` or `pretrained`.

options:
  -h, --help  show this help; after a command, show its options
  --version   show the version of this package
  --debug     show the traceback of an error

examples:
  {PROGRAM} demo
  {PROGRAM} fit --trainer.max_epochs 3"""

# The extra that installs each optional package.
EXTRAS = {"optuna": "sweep", "psutil": "sweep"}

# How much later than another process the first one may find the same error.
ERROR_WAIT_SECONDS = 30

MAX_REASON_CHARS = 300  # of an error that an unsigned file may have caused


def dispatch(arguments: list[str]) -> int:
    """Run the command that is the first of `arguments`; return its exit status."""
    name, *rest = arguments or [""]
    if name in ("", "-h", "--help", "help"):
        say(HELP, file=sys.stdout if name else sys.stderr)
        return 0 if name else 2
    if name == "--version":
        say(f"mnist-lightning {__version__}")
        return 0
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"commands: {', '.join(COMMANDS)}"
        raise UserError(f"unknown command {name!r}; {hint}", status=2)
    try:
        status: int = import_module(f"mnist_lightning.cli.{name}").main(rest)
    except ModuleNotFoundError as missing:
        if missing.name not in EXTRAS:
            raise
        install = f"pip install 'mnist-lightning[{EXTRAS[missing.name]}]'"
        raise UserError(f"{name} needs {missing.name}; install it: {install}") from None
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; report an error in one line on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    unsigned_files.last = None
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    warnings.showwarning = _show_warning
    try:
        return dispatch(arguments)
    except BrokenPipeError:  # the reader of the output has ended, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        message, status = explain(error)
        _report(message, status)
        return status


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Show a warning in one line, without its source line.

    It replaces the whole function: Lightning replaces `formatwarning`, and escapes nothing.
    """
    text = str(message).partition("Traceback")[0][:MAX_MESSAGE_CHARS]  # of torch's anomaly mode
    say(f"warning: {printable(text)}", file=sys.stderr)


def _report(message: str, status: int) -> None:
    """Report on stderr the error that ended this process.

    If several processes train one run, the first one reports an error that all of them find.
    torchrun and clusters may end the first one as soon as another has ended. So the others wait,
    and report the error too if they still exist after that.
    """
    # Set by the launcher of several processes.
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    number = next((os.environ[name] for name in names if name in os.environ), "0")
    if number != "0":
        started_by_first = "LOCAL_RANK" in os.environ and "RANK" not in os.environ
        if status == 130 or (status == 2 and started_by_first):
            return
        if status == 2:
            time.sleep(ERROR_WAIT_SECONDS)
        message = f"process {number}: {message}"
    # One line of limited length, whatever the message contains of a file's name or content.
    visible = printable(message[:MAX_MESSAGE_CHARS])
    say(f"mnist-lightning: error: {visible}", file=sys.stderr)


def explain(error: BaseException) -> tuple[str, int]:
    """Return the message for an error, in one line, and the exit status."""
    if isinstance(error, UserError):
        return str(error), error.status
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else ""), 1
    if isinstance(error, UnicodeEncodeError):  # TensorBoard and others cannot write such a path
        return f"{error.object} contains bytes that are not UTF-8; rename the file or folder", 1
    if type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
        smaller = "--data.batch_size N or --data.eval_batch_size N"
        return f"out of GPU memory; use smaller batches: {smaller}", 1
    if isinstance(error, RuntimeError) and "a deterministic implementation" in str(error):
        option = "--trainer.deterministic false (the run is then not exactly reproducible)"
        fix = f"give {option} or --trainer.accelerator cpu"
        return f"{str(error).split()[0]} is not deterministic on this device; {fix}", 1
    if isinstance(error, RuntimeError) and "returned nan values" in str(error):
        return "a gradient is not a number; use a smaller --model.optimizer.lr", 1
    if (path := unsigned_files.last) is not None:
        reason = " ".join(f"{type(error).__name__} {error}".split())[:MAX_REASON_CHARS]
        advice = "--debug shows the traceback"
        return f"{path} has no signature of yours, and may be invalid: {reason} ({advice})", 1
    # Lightning's exception for options that contradict each other or the data. Its class is not
    # imported here: every command would import lightning.
    if isinstance(error, ValueError) or type(error).__name__ == "MisconfigurationException":
        return " ".join(str(error).split()), 2
    if (configured := _configured_option(error)) is not None:
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"--{configured}: {reason} (--debug shows the traceback)", 1
    advice = "this looks like a bug; --debug shows the traceback"
    return f"{type(error).__name__}: {error} ({advice})", 1


# The classes that a user configures, by their modules.
CONFIGURED = {
    "torch.optim": "model.optimizer",
    "mnist_lightning.training.lr_schedules": "model.lr_scheduler",
    "mnist_lightning.data.augmentations": "data.augment",
    "lightning.pytorch.callbacks": "trainer.callbacks",
}


def _configured_option(error: BaseException) -> str | None:
    """Return the option whose class raised an error during training; None for other code.

    Some classes accept arguments with which they fail later. The error must come from their own
    code, or from functions of torch that they call.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        module = frame.f_globals.get("__name__", "")
        for prefix, option in CONFIGURED.items():
            if f"{module}.".startswith(f"{prefix}."):
                return option
        if not f"{module}.".startswith("torch."):
            return None
    return None


def _protect_child_processes() -> None:
    """Let no Python process that this one starts import modules from the working directory.

    A file of a downloaded folder could replace a module of the standard library there.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
    root = str(Path(__file__).parents[2])
    if root not in sys.path:  # not installed, but started in its own folder
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def run() -> NoReturn:
    """Run one command in this process, and end it without finalizing the interpreter.

    After a training, finalizing takes 1.5 s and only frees what the end of the process frees
    anyway. Functions registered with `atexit` still run.
    """
    status = 1

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    atexit.register(leave)  # registered first, so called last
    _protect_child_processes()
    try:
        status = main()
    except SystemExit as error:  # of a parser that showed its help
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    sys.exit(status)


if __name__ == "__main__":
    run()
