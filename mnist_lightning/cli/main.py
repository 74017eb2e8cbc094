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
from typing import NamedTuple, NoReturn

from mnist_lightning.errors import PROGRAM, UserError, __version__
from mnist_lightning.text import printable, say


class Command(NamedTuple):
    """Where a command lives (a function `main(arguments) -> exit status`) and what it does."""

    module: str
    function: str
    usage: str
    summary: str


COMMANDS = {
    "fit": Command(
        "mnist_lightning.cli.fit",
        "main",
        "[--config FILE]… [--model.… --data.… --trainer.…]",
        "train a network, keep its best checkpoint and test that",
    ),
    "resume": Command(
        "mnist_lightning.cli.resume",
        "main",
        "[RUN] [--trainer.max_epochs N]",
        "go on with a run in its own folder",
    ),
    "validate": Command(
        "mnist_lightning.cli.test",
        "validate",
        "[RUN]",
        "evaluate a checkpoint on the validation set",
    ),
    "test": Command(
        "mnist_lightning.cli.test", "test", "[RUN]", "evaluate a checkpoint on the test set"
    ),
    "predict": Command(
        "mnist_lightning.cli.predict",
        "main",
        "IMAGE… [--run RUN] [--json | --csv] [--save_inputs DIR]",
        "read the digits in picture files",
    ),
    "serve": Command(
        "mnist_lightning.cli.serve",
        "main",
        "[RUN] [--port N] [--collect DIR]",
        "a web page: draw or upload a digit, see what the network saw and thinks",
    ),
    "report": Command(
        "mnist_lightning.cli.report",
        "main",
        "[RUN]",
        "put what a run did on one page, with pictures",
    ),
    "runs": Command(
        "mnist_lightning.cli.runs",
        "main",
        "[RUN…] [--sort ORDER] [--json | --csv] [--png FILE]",
        "list the runs, or compare some of them",
    ),
    "export": Command(
        "mnist_lightning.cli.export",
        "main",
        "[RUN] --format pth|safetensors|onnx|pt2|html [--output PATH]",
        "a model to use elsewhere, proven equal",
    ),
    "sweep": Command(
        "mnist_lightning.cli.sweep",
        "main",
        "--config FILE --space FILE [--trials N] [--workers N] [options of fit]",
        "search for the best options, many runs at a time",
    ),
    "verify": Command(
        "mnist_lightning.cli.verify",
        "main",
        "[--config FILE] [options of fit]",
        "prove the promises on this machine, with runs that are killed and resumed",
    ),
    "data": Command(
        "mnist_lightning.cli.data",
        "main",
        "[NAME]… [--fetch]",
        "show where each data set is and whether it is whole; fetch it",
    ),
    "completion": Command(
        "mnist_lightning.cli.completion",
        "main",
        "bash|zsh",
        "a script by which a shell completes all of this at the tab key",
    ),
}


# Who brings what a command needs beside the core.
EXTRAS = {"fastapi": "web", "uvicorn": "web", "optuna": "sweep", "psutil": "sweep"}

# How long the first of several processes may take longer than another to find the same error.
PATIENCE_SECONDS = 30


def help_text() -> str:
    """The help of the whole, without importing any command."""
    width = max(map(len, COMMANDS))
    rows = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} COMMAND [options]",
            "",
            "Train, resume and test handwritten-digit classifiers.",
            "",
            "commands:",
            *rows,
            "",
            "RUN is a run's folder, its version number, a checkpoint file, `last` or `best`.",
            "",
            "options:",
            "  -h, --help  this text, or after a command that command's options",
            "  --version   the version of this package",
            "  --debug     show the traceback of an error",
            "",
            f"example:  {PROGRAM} fit --trainer.max_epochs 3",
        ]
    )


def dispatch(arguments: list[str]) -> int:
    """Run the command that `arguments` begin with; return its exit status."""
    if not arguments or not arguments[0]:
        say(help_text(), file=sys.stderr)
        return 2
    name, *rest = arguments
    if name in ("-h", "--help", "help"):
        say(help_text())
        return 0
    if name == "--version":
        say(f"mnist-lightning {__version__}")
        return 0
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(COMMANDS)}"
        raise UserError(f"there is no command {name!r}; {hint}", status=2)
    command = COMMANDS[name]
    try:
        status: int = getattr(import_module(command.module), command.function)(rest)
    except ModuleNotFoundError as missing:
        if missing.name not in EXTRAS:
            raise
        install = f"pip install 'mnist-lightning[{EXTRAS[missing.name]}]'"
        raise UserError(f"{name} needs {missing.name}; install it: {install}") from None
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; an error is told in one line on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    # Without the source line of whoever warns.
    warnings.formatwarning = lambda message, *_, **__: f"warning: {printable(str(message))}\n"
    try:
        return dispatch(arguments)
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        message, status = explain(error)
        _tell(message, status)
        return status


def _tell(message: str, status: int) -> None:
    """Say on stderr what ended this process.

    Of several processes for one run the first tells what all of them find. torchrun and clusters
    may end it as soon as another has ended, so the others give it time; who is still there
    after that tells it, too.
    """
    number = _number()
    if number != "0":
        started_by_first = "LOCAL_RANK" in os.environ and "RANK" not in os.environ
        if status == 130 or (status == 2 and started_by_first):
            return
        if status == 2:
            time.sleep(PATIENCE_SECONDS)
        message = f"process {number}: {message}"
    # In one line, whatever a file's name or content brings into the message.
    say(f"mnist-lightning: error: {printable(message)}", file=sys.stderr)


def _number() -> str:
    """Which of several processes this is, as those who start them tell it; 0 by itself."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return next((os.environ[name] for name in names if name in os.environ), "0")


def explain(error: BaseException) -> tuple[str, int]:
    """Say in a line what went wrong, and with which exit status to end."""
    if isinstance(error, UserError):
        return str(error), error.status
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else ""), 1
    # Lightning's own word for options that contradict each other or the data; to import its class
    # here would cost every command lightning.
    if isinstance(error, ValueError) or type(error).__name__ == "MisconfigurationException":
        return " ".join(str(error).split()), 2
    if type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
        smaller = "--data.batch_size N or --data.eval_batch_size N"
        return f"the GPU's memory is full; give smaller batches, {smaller}", 1
    if isinstance(error, RuntimeError) and "a deterministic implementation" in str(error):
        operation = str(error).split()[0]
        return (
            f"{operation} is not deterministic on this device; give --trainer.deterministic "
            "false (the run is then not exactly repeatable) or --trainer.accelerator cpu",
            1,
        )
    return f"{type(error).__name__}: {error} (this looks like a bug; --debug shows where)", 1


def run() -> NoReturn:
    """Run one command as a process of its own, and end that without taking Python apart.

    After a training that takes Python 1.5 s, in which nothing happens that the end of the process
    does not bring about. What was registered for its end is done all the same.
    """
    status = 1

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    atexit.register(leave)  # the first to be registered is the last to be called
    try:
        status = main()
    except SystemExit as ending:  # of a parser that showed its help
        status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    sys.exit(status)


if __name__ == "__main__":
    run()
