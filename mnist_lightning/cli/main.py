"""The table of commands: the module of a command is imported only when it runs."""

import atexit
import gc
import os
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, NoReturn

from mnist_lightning.cli import options
from mnist_lightning.cli.exceptions import explain
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
        "[--config FILE]… [--model.… --data.… --trainer.…] [--watch]",
        "train a network, save its best checkpoint, and test it",
    ),
    "resume": Command("[RUN] [--trainer.max_epochs N]", "continue a run in its own directory"),
    "validate": Command("[RUN]", "evaluate a checkpoint on the validation set"),
    "test": Command("[RUN]", "evaluate a checkpoint on the test set"),
    "predict": Command(
        "IMAGE… [--run RUN] [--json | --jsonl | --csv] [--output FILE] [--save_inputs DIR]",
        "read the digits in image files",
    ),
    "serve": Command(
        "[RUN] [--port N] [--collect DIR]",
        "serve a web page: draw or upload a digit, and see the network's input and prediction",
    ),
    "report": Command("[RUN]", "write the results of a run as one HTML page, with figures"),
    "runs": Command(
        "[RUN…] [--sort ORDER] [--limit N] [--json | --csv | --markdown] [--png FILE]",
        "list the runs, or compare some of them",
    ),
    "export": Command(
        "[RUN] --format pth|safetensors|onnx|int8|pt2|html [--output PATH]",
        "export the network to another format, and check the exported file",
    ),
    "sweep": Command(
        "--config FILE --space FILE | --configs FILE… [--seeds 1..5] [options of fit]",
        "search for the best options, or compare configs, with parallel runs",
    ),
    "verify": Command(
        "[--config FILE] [options of fit]",
        "check on this machine: data, determinism, and resume after a kill",
    ),
    "reproduce": Command(
        "[ROW] [--seeds N] [--quick]",
        "train a published result again, and compare the figures",
    ),
    "data": Command(
        "[NAME]… [--fetch] | --clear_cache",
        "show where data sets are and whether they are complete; download them",
    ),
    "explain": Command("[TERM]", "explain a term, such as `log interval`; list all terms"),
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
    if (text := options.requested_help(name, rest)) is not None:
        say(text)
        return 0
    options.check_names(name, rest)
    status: int = _import_command(name).main(rest)
    return status


def _import_command(name: str) -> ModuleType:
    """Import the module of a command; show on a terminal that this takes seconds.

    The imports of a training create millions of objects that stay. Garbage collection would take
    a fifth of the time, and `freeze` keeps later collections from examining these objects.
    """
    path = f"mnist_lightning.cli.{name}"
    if path in sys.modules:
        return sys.modules[path]
    shown = sys.stderr is not None and sys.stderr.isatty()
    if shown:
        print("starting …", end="", file=sys.stderr, flush=True)
    gc.disable()
    try:
        return import_module(path)
    except ModuleNotFoundError as missing:
        if missing.name not in EXTRAS:
            raise
        install = f"pip install 'mnist-lightning[{EXTRAS[missing.name]}]'"
        raise UserError(f"{name} needs {missing.name}; install it: {install}") from None
    finally:
        gc.freeze()
        gc.enable()
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


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
