"""The command `reproduce`: train a published result again, and compare the figures."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from mnist_lightning.cli import console, suggestions
from mnist_lightning.cli.parser import CommandParser
from mnist_lightning.data.datasets import SOURCES, DigitData
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.evaluation.published import PublishedRow, list_rows, read_row
from mnist_lightning.text import percent, plural, say
from mnist_lightning.training.recipe_runs import RecipeRun, train_seed

QUICK_SECONDS = 60.0  # of the training with one seed
MAX_NEW_SEEDS = 1000
# The answer "different" is wrong for 1 of 100 correct rows; at 95 % it would be wrong for 1 of 20.
LEVEL = 0.99
DIFFERENT = "different"


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    description = (
        "Train a published result again, and compare: equal in every bit, consistent with the "
        "published seeds, or different. Without a ROW: list the rows."
    )
    parser = CommandParser("reproduce", description, "mlp\nmlp --new_seeds 20 --workers 2\n--quick")
    parser.add_argument("row", nargs="?", metavar="ROW", help="the name of a published result")
    seeds_help = "the number of new seeds to train (default: train the first published seed)"
    parser.add_argument("--new_seeds", type=int, metavar="N", help=seeds_help)
    quick_help = "train one seed of each row that needs less than a minute; read the others"
    parser.add_argument("--quick", action="store_true", help=quick_help)
    workers_help = "the number of trainings at the same time (default: 1)"
    parser.add_argument("--workers", type=int, default=1, metavar="N", help=workers_help)
    parser.add_argument("--data.data_dir", dest="data_dir", default="data", metavar="DIR")
    return parser


def main(arguments: list[str]) -> int:
    """Reproduce one row, or all; return 1 if one is different."""
    options = make_parser().parse_args(arguments)
    if options.row is None and not options.quick:
        return _list()
    if options.quick and options.new_seeds is not None:
        raise UserError("--quick trains a published seed, --new_seeds others: give only one", 2)
    if options.new_seeds is not None and not 1 <= options.new_seeds <= MAX_NEW_SEEDS:
        raise UserError(f"--new_seeds {options.new_seeds}: expected 1 to {MAX_NEW_SEEDS}", status=2)
    if options.workers < 1:
        raise UserError(f"--workers {options.workers}: expected at least 1", status=2)
    rows = (
        [_find(options.row)] if options.row else [read_row(each) for each in list_rows().values()]
    )
    answers, data_of = [], {}
    for row in rows:
        if row.dataset not in data_of:
            data_of[row.dataset] = _load_data(row, Path(options.data_dir))
        say(f"{row.name}: {row.command}\n{'':<4}{_figures(row)}", flush=True)
        if options.quick and row.results[0].fit_seconds >= QUICK_SECONDS:
            answer = _check_stored(row, data_of[row.dataset])
        elif options.new_seeds is None:
            answer = _train_published(row, options.data_dir)
        else:
            answer = _train_new(row, options.new_seeds, options.workers, options.data_dir)
        answers.append(answer)
    return 1 if DIFFERENT in answers else 0


def _list() -> int:
    columns = ["row", "seeds", "test accuracy", "95 % prediction interval", "s per seed"]
    table = console.make_table("published results", columns, texts=["row"])
    for path in list_rows().values():
        row = read_row(path)
        table.add_row(
            row.name,
            str(len(row.results)),
            _format_spread(row),
            _format_range(row.interval()),
            f"{row.fit_seconds:.0f}",
        )
    terminal = console.make_console()
    terminal.print(table, highlight=False)
    console.show_next_commands(terminal, [f"{PROGRAM} reproduce {next(iter(list_rows()))}"])
    return 0


def _find(reference: str) -> PublishedRow:
    rows = list_rows()
    if reference in rows:
        return read_row(rows[reference])
    expected = f"{suggestions.introduce_choices(reference, rows)}{', '.join(rows)}"
    raise UserError(f"unknown row {reference!r}; {expected}", status=2)


def _load_data(row: PublishedRow, data_dir: Path) -> DigitData:
    if row.dataset not in SOURCES:
        raise UserError(f"{row.name}: unknown data set {row.dataset!r}")
    try:
        return SOURCES[row.dataset].load(data_dir)
    except FileNotFoundError:
        option = "" if data_dir == Path("data") else f" --data.data_dir {data_dir}"
        fetch = f"{PROGRAM} data {row.dataset} --fetch{option}"
        raise UserError(f"{row.dataset} is not in {data_dir}; download it: {fetch}") from None


def _figures(row: PublishedRow) -> str:
    return (
        f"test accuracy {_format_spread(row)} ({plural(len(row.results), 'seed')}); "
        f"95 % prediction interval: {_format_range(row.interval())}"
    )


def _format_spread(row: PublishedRow) -> str:
    return f"{100 * row.spread.mean:.2f} ± {percent(row.spread.std)}"


def _format_range(interval: tuple[float, float], digits: int = 2) -> str:
    low, high = interval
    return f"{100 * max(low, 0):.{digits}f} to {percent(min(high, 1), digits)}"


def _check_stored(row: PublishedRow, data: DigitData) -> str:
    """Compute the accuracy of each seed again from its stored predictions."""
    labels = data.test_labels.tolist()
    for result in row.results:
        wrong = [
            index
            for index, predicted in result.mistakes.items()
            if not (0 <= index < len(labels) and predicted != labels[index])
        ]
        if wrong or len(labels) != row.test_size:
            say(f"    seed {result.seed}: its stored predictions do not belong to this test set")
            return _conclude(row, DIFFERENT)
    return _conclude(row, "stored predictions confirm the figures; nothing was trained")


def _train_published(row: PublishedRow, data_dir: str) -> str:
    published = row.results[0]
    with _folder() as folder:
        again = train_seed(row.recipe, published.seed, folder, data_dir)
    say(f"    seed {published.seed}: {_seconds(again, row)}")
    if again.result.predictions == published.predictions:
        say(f"    all {row.test_size:,} predictions are equal, with all probabilities")
        return _conclude(row, "equal")
    changed = again.result.mistakes.items() ^ published.mistakes.items()
    images = plural(len({index for index, _ in changed}), "image")
    say(
        f"    published: {percent(published.test_accuracy)}; other labels for {images}; "
        f"{_environment(row, again)}"
    )
    return _conclude(row, _compare([again.result.test_accuracy], row))


def _train_new(row: PublishedRow, count: int, workers: int, data_dir: str) -> str:
    """Train with the seeds after the highest published one."""
    first = max(result.seed for result in row.results) + 1
    low, high = row.interval()
    accuracies = []
    with _folder() as folder, ThreadPoolExecutor(workers) as pool:
        seeds = range(first, first + count)
        for again in pool.map(lambda seed: train_seed(row.recipe, seed, folder, data_dir), seeds):
            accuracy = again.result.test_accuracy
            accuracies.append(accuracy)
            say(f"    seed {again.result.seed}: {_seconds(again, row)}", flush=True)
            shutil.rmtree(again.run.folder)
    inside = sum(low <= accuracy <= high for accuracy in accuracies)
    say(
        f"    {inside} of {plural(count, 'new seed')} inside; "
        f"their mean is {percent(sum(accuracies) / count, 3)}, "
        f"99 % of such means: {_format_range(row.interval(count, LEVEL), 3)}"
    )
    return _conclude(row, _compare(accuracies, row))


def _compare(accuracies: Sequence[float], row: PublishedRow) -> str:
    low, high = row.interval(len(accuracies), LEVEL)
    return "consistent" if low <= sum(accuracies) / len(accuracies) <= high else DIFFERENT


def _conclude(row: PublishedRow, answer: str) -> str:
    say(f"{row.name}: {answer}\n", flush=True)
    return answer


def _seconds(again: RecipeRun, row: PublishedRow) -> str:
    low, high = row.interval()
    accuracy = again.result.test_accuracy
    place = "inside" if low <= accuracy <= high else "outside"
    return f"{percent(accuracy)} in {again.seconds:.0f} s, {place}"


def _environment(row: PublishedRow, again: RecipeRun) -> str:
    """Return what differs here from the machine of the published result."""
    here, there = again.environment, row.environment
    differing = [
        f"{name} {here.get(name, '?')} instead of {there[name]}"
        for name in there
        if here.get(name) != there[name]
    ]
    return ", ".join(differing) or "same versions, same kind of processor"


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mnist_lightning_reproduce_") as name:
        yield Path(name)
