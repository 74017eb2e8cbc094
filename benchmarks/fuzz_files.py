"""Mutate every file of a run, and show that no command executes, breaks or wastes anything.

    python benchmarks/fuzz_files.py [--count 5000] [--seed 0] [--first 0] [--processes 2]

A small run on the bundled digits is the original. Each trial copies it, changes one file (types,
strings for structures, class names, sizes, NaN, broken bytes, links, pipes), as somebody else could
(with a correct digest, without a signature), and runs one command that reads the file, in a forked
process under an audit hook. A trial fails if the command, compared with the same command on the
original,

- imports a module, starts a process, opens a socket, or writes outside the folder of the trial,
- prints a traceback, calls it a bug, or dies of a signal,
- takes more than 10 s of CPU time, 60 s in all, or 1 GB beyond the original.

A failure prints its number: `--first NUMBER --count 1` repeats it with the output of the command.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from file_mutations import MUTATIONS, mutate
from PIL import Image, ImageDraw

# Beyond the original. CPU time, since others may use the machine too; 2**20 kB are 1 GB.
SECONDS, PATIENCE, KILOBYTES = 10, 60, 2**20
FIT = ["fit", "--data.dataset", "digits", "--model.network", "TinyCNN", "--trainer.max_epochs", "1"]
FIT += ["--trainer.limit_train_batches", "3", "--trainer.limit_val_batches", "1"]
LONGER = ["--trainer.max_epochs", "2"]

# Which commands read a file; {run} is the run directory.
COMMANDS: dict[str, list[list[str]]] = {
    "best.ckpt": [
        ["test", "0"],
        ["validate", "0"],
        ["predict", "seven.png", "--run", "0"],
        ["export", "0", "--format", "pth", "--check_images", "20"],
        ["export", "0", "--format", "safetensors", "--check_images", "20"],
        ["test", "0,1"],
        [*FIT, "--init_from", "0"],
    ],
    "last.ckpt": [
        ["resume", "0", *LONGER],
        ["resume", "0"],
        ["resume", "{run}/checkpoints/last.ckpt", *LONGER],
        ["test", "{run}/checkpoints/last.ckpt"],
        [*FIT, *LONGER, "--auto_resume", "true"],
        ["fit", "--ckpt_path", "{run}/checkpoints/last.ckpt", *LONGER],
    ],
    "config.yaml": [
        ["resume", "0", *LONGER],
        ["test", "0"],
        ["runs", "0", "1"],
        ["export", "0", "--format", "pth", "--check_images", "20"],
        [*FIT, *LONGER, "--auto_resume", "true"],
        [
            "fit",
            "--config",
            "{run}/config.yaml",
            "--data.dataset",
            "digits",
            *LONGER,
        ],  # no download
    ],
    "summary.json": [
        ["runs"],
        ["runs", "--json"],
        ["runs", "--csv"],
        ["runs", "0", "1"],
        ["predict", "seven.png", "--run", "best"],
        ["export", "0", "--format", "pth", "--check_images", "20"],
        ["resume", "0", *LONGER],
        ["report", "0"],
    ],
    "metrics.csv": [["runs", "0", "1"], ["report", "0"], ["resume", "0", *LONGER]],
    "predictions.csv": [["runs", "0", "1"], ["report", "0"], ["resume", "0", *LONGER]],
    "events": [["resume", "0", *LONGER], [*FIT, *LONGER, "--auto_resume", "true"]],
    "model.safetensors": [["predict", "seven.png", "--run", "{run}/model.safetensors"]],
}
# How often: slow commands are tried less.
WEIGHTS = {"best.ckpt": 6, "last.ckpt": 8, "config.yaml": 6, "summary.json": 4}


class Trial(NamedTuple):
    """What is changed, and which command reads it."""

    number: int
    file: str
    command: tuple[str, ...]


class Outcome(NamedTuple):
    """How a command ended.

    Attributes:
        status: its exit status, negative for a signal.
        seconds: how long it took.
        kilobytes: its largest memory.
        events: what the audit hook saw: imports, processes, sockets, writes outside.
        printed: what it printed.
    """

    status: int
    seconds: float
    kilobytes: int
    events: frozenset[str]
    printed: str


def make_original(folder: Path) -> None:
    """Train two small runs, and export one."""
    pen = Image.new("L", (120, 120), 255)
    ImageDraw.Draw(pen).line([(30, 30), (90, 30), (50, 95)], 0, 9)
    pen.save(folder / "seven.png")
    for seed in ("1", "2"):
        done = run_command([*FIT, "--seed_everything", seed], folder, 120)
        assert done.status == 0, done.printed
    export = ["export", "0", "--format", "safetensors", "--check_images", "20"]
    done = run_command(
        [*export, "--output", "lightning_logs/version_0/model.safetensors"], folder, 60
    )
    assert done.status == 0, done.printed


def run_command(arguments: list[str], folder: Path, limit: float) -> Outcome:
    """Run a command in a fork of this process, with everything imported, and watch it."""
    printed, seen = folder / ".printed", folder / ".seen"
    began = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        _child(arguments, folder, printed, seen)
    status, usage = _wait(pid, began + limit)
    seconds = usage.ru_utime + usage.ru_stime
    events = frozenset(seen.read_text().splitlines()) if seen.exists() else frozenset()
    text = printed.read_text(errors="replace") if printed.exists() else ""
    code = os.waitstatus_to_exitcode(status)
    return Outcome(code, seconds, usage.ru_maxrss, events, text)


def _wait(pid: int, deadline: float) -> tuple[int, resource.struct_rusage]:
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return status, usage
        if time.perf_counter() > deadline:
            os.kill(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
            return status, usage
        time.sleep(0.005)


def _child(arguments: list[str], folder: Path, printed: Path, seen: Path) -> None:
    os.setsid()
    os.chdir(folder)
    tempfile.tempdir = str(folder)  # so that a write to the common one is outside
    signal.signal(signal.SIGINT, signal.default_int_handler)
    descriptor = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    watch = os.open(seen, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    sys.addaudithook(_Hook(str(folder.resolve()), watch))
    status = 1
    try:
        from mnist_lightning.cli.main import main

        status = main(arguments)
    except SystemExit as ended:
        status = int(ended.code or 0) if isinstance(ended.code, int | None) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class _Hook:
    """Notes what a command does beyond computing: one line an event."""

    WRITES = (
        *("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.chmod"),
        *("os.chown", "os.truncate", "shutil.rmtree", "shutil.move", "shutil.copyfile"),
    )
    # The others act on a link itself, not on what it leads to.
    FOLLOWING = ("os.chmod", "os.chown", "os.truncate", "shutil.copyfile")
    PROCESSES = (
        *("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty"),
        *("os.posix_spawn", "os.spawn", "pty.spawn"),
    )
    SOCKETS = (
        *("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto"),
        "socket.gethostbyname",
    )

    def __init__(self, folder: str, descriptor: int) -> None:
        self.folder = folder
        self.descriptor = descriptor
        self.noted: set[str] = set()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "import":
            if arguments[0] not in sys.modules:
                self.note(f"import {arguments[0]}")
        elif event == "open":
            path, mode, flags = arguments
            writes = (isinstance(mode, str) and any(sign in mode for sign in "wax+")) or (
                isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            )
            if writes:
                self.outside(event, path)
        elif event in self.WRITES:
            for path in arguments[:2]:
                self.outside(event, path, follow=event in self.FOLLOWING)
        elif event in self.PROCESSES or event in self.SOCKETS:
            self.note(f"{event} {str(arguments[:1])[:100]}")

    def outside(self, event: str, path: Any, follow: bool = True) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            named = os.fsdecode(path)
            folder, name = os.path.split(os.path.abspath(named))  # noqa: PTH100
            real = os.path.realpath(named) if follow else f"{os.path.realpath(folder)}/{name}"
            if not real.startswith(self.folder + os.sep) and not real.startswith("/dev/"):
                self.note(f"{event} {real}")

    def note(self, line: str) -> None:
        line = line.replace("\n", " ")
        if line not in self.noted:
            self.noted.add(line)
            os.write(self.descriptor, (line + "\n").encode(errors="replace"))


def draw(number: int, seed: int) -> tuple[Trial, random.Random]:
    """Choose a trial: a function of its number and the seed."""
    chance = random.Random(f"{seed}:{number}")
    files = list(COMMANDS)
    file = chance.choices(files, [WEIGHTS.get(name, 2) for name in files])[0]
    commands = COMMANDS[file]
    heavy = [8 if command[0] != "report" else 1 for command in commands]
    command = chance.choices(commands, heavy)[0]
    run = "lightning_logs/version_0"
    return Trial(number, file, tuple(word.format(run=run) for word in command)), chance


def target(file: str, folder: Path) -> Path:
    """Find a file of the run by its name here."""
    run = folder / "lightning_logs" / "version_0"
    if file == "events":
        return next(run.glob("events.out.tfevents.*"))
    return run / "checkpoints" / file if file.endswith(".ckpt") else run / file


class Fuzzer:
    """Compares each trial with the same command on the original."""

    def __init__(self, original: Path, place: Path, seed: int) -> None:
        self.original = original
        self.place = place
        self.seed = seed
        self.expected: dict[tuple[str, ...], Outcome] = {}

    def learn(self, command: tuple[str, ...]) -> Outcome:
        """Run a command on the original, once."""
        if command not in self.expected:
            folder = self.place / f"original_{len(self.expected)}"
            shutil.copytree(self.original, folder, symlinks=True)
            done = run_command(list(command), folder, 120)
            self.expected[command] = done
            shutil.rmtree(folder)
        return self.expected[command]

    def attempt(self, number: int) -> tuple[Trial, str, Outcome, list[str]]:
        """Make a trial; return it, what was changed, how it ended, and what is wrong with that."""
        trial, chance = draw(number, self.seed)
        expected = self.expected[trial.command]
        folder = self.place / f"trial_{number}"
        shutil.copytree(self.original, folder, symlinks=True)
        path = target(trial.file, folder)
        how = mutate(trial.file, path, chance)
        done = run_command(list(trial.command), folder, expected.seconds + PATIENCE)
        shutil.rmtree(folder, ignore_errors=True)
        return trial, how, done, self.judge(done, expected)

    @staticmethod
    def judge(done: Outcome, expected: Outcome) -> list[str]:
        """List what a mutated file caused and must not."""
        wrong = sorted(done.events - expected.events)
        if "Traceback" in done.printed or "looks like a bug" in done.printed:
            wrong.append("traceback")
        if done.status < 0:
            wrong.append(f"signal {-done.status}")
        if done.seconds > expected.seconds + SECONDS:
            wrong.append(f"{done.seconds:.0f} s, {expected.seconds:.1f} s on the original")
        if done.kilobytes > expected.kilobytes + KILOBYTES:
            wrong.append(f"{done.kilobytes / 2**20:.1f} GB")
        return wrong


def preload() -> None:
    """Import what the commands import lazily, also to report an error: a fork imports nothing."""
    from importlib import import_module

    import torch

    torch.set_num_threads(1)
    from mnist_lightning.cli.main import COMMANDS as TABLE

    for name in TABLE:
        import_module(f"mnist_lightning.cli.{name}")
    for name in PRELOADED:
        import_module(name)


PRELOADED = (
    "rich._emoji_codes",  # where a name has two colons
    "matplotlib.backends.backend_agg",
    "matplotlib.pyplot",
    "mnist_lightning.evaluation.comparison",
    "safetensors.torch",
    "sklearn.datasets",
    "traceback",
)


def main() -> int:
    """Make the trials, report the failures, and count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=5_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    preload()
    with tempfile.TemporaryDirectory(prefix="fuzz_files_") as place:
        os.environ["XDG_CONFIG_HOME"] = f"{place}/config"
        original = Path(place) / "original"
        original.mkdir()
        make_original(original)
        failures = fuzz(options, original, Path(place))
    return 1 if failures else 0


def fuzz(options: argparse.Namespace, original: Path, place: Path) -> int:
    """Make all trials; return how many failed."""
    fuzzer = Fuzzer(original, place, options.seed)
    numbers = range(options.first, options.first + options.count)
    for command in sorted({draw(number, options.seed)[0].command for number in numbers}):
        done = fuzzer.learn(command)
        assert done.status == 0 or "--auto_resume" in command, (command, done.printed)
    began = time.perf_counter()
    kinds: Counter[str] = Counter()
    failed = refused = 0
    with get_context("fork").Pool(options.processes) as pool:
        for trial, how, done, wrong in pool.imap(fuzzer.attempt, numbers):
            kinds[trial.file] += 1
            refused += done.status != 0
            if sum(kinds.values()) % 500 == 0:
                print(
                    f"after {time.perf_counter() - began:.0f} s: {sum(kinds.values())}", flush=True
                )
            if wrong or options.count == 1:
                failed += bool(wrong)
                print(f"{trial.number}: {trial.file}, {how}; {' '.join(trial.command)}")
                print(f"    {'; '.join(wrong[:4])}\n    {done.printed.strip()[-600:]}", flush=True)
    print(
        f"{len(numbers):,} mutations ({', '.join(f'{n} {name}' for name, n in kinds.items())}): "
        f"{failed} failures, {refused} ended with an error message, "
        f"{len(numbers) - refused} went on; {time.perf_counter() - began:.0f} s, {MUTATIONS} kinds"
    )
    return failed


if __name__ == "__main__":
    sys.exit(main())
