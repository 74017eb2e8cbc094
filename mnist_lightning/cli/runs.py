"""The command `runs`: list the runs, or compare some of them.

It imports neither torch nor Lightning for a list, and reads each `summary.json` once.
"""

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_lightning.cli.parser import CommandParser
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.files import write_atomically
from mnist_lightning.runs import lookup, run_directory, summary_table
from mnist_lightning.runs.config import format_setting
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.runs.summary_table import BEST, NEWEST, RunRow
from mnist_lightning.text import as_csv, markdown, markdown_table, plural, printable, say, shorten

if TYPE_CHECKING:
    from mnist_lightning.evaluation.comparison import Comparison

SIGNIFICANT = 0.05
MAX_SETTINGS = 100  # in a comparison
MANY_ROWS = 100  # more do not fit on a screen


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    description = "List all runs, or compare the given ones."
    parser = CommandParser("runs", description, "3 4 --png curves.png")
    parser.add_argument("runs", nargs="*", metavar="RUN", help="the runs to compare")
    orders = (NEWEST, BEST, *RunRow._fields)
    sort_help = f"{NEWEST} first, {BEST} first, or a column: {', '.join(RunRow._fields)}"
    parser.add_argument("--sort", choices=orders, metavar="ORDER", help=sort_help)
    limit_help = "list at most N runs, the first ones in this order (default: all)"
    parser.add_argument("--limit", type=int, metavar="N", help=limit_help)
    parser.add_output_format(markdown="print Markdown tables, for an issue")
    png_help = "where to save the curves of the given runs"
    parser.add_argument("--png", type=Path, metavar="FILE", help=png_help)
    parser.add_root()
    return parser


def main(arguments: list[str]) -> int:
    """List all runs, or compare the given ones."""
    options = make_parser().parse_args(arguments)
    root = options.root
    references = [run for argument in options.runs for run in lookup.expand_references(argument)]
    _check_options(options, len(references))
    if not references:
        runs = run_directory.list_runs(root)
        rows = _first_rows(runs, options.sort or NEWEST, options.limit)
        return _list(rows, options, total=len(runs))
    selected = [lookup.find(reference, root)[0] for reference in references]
    _refuse_duplicates(selected)
    if len(selected) == 1 or options.csv:
        rows = _first_rows(selected, options.sort or "run")
        return _list(rows, options, total=len(rows))
    is_text = not options.json and not options.markdown
    default = root / "comparison.png" if root.is_dir() and is_text else None
    formats = {"json": options.json, "markdown": options.markdown, "text": is_text}
    name = next(name for name, requested in formats.items() if requested)
    return _compare(selected, name, options.png or default)


def _check_options(options: Namespace, num_runs: int) -> None:
    """Check that the options apply to the number of given runs.

    Raises:
        UserError: an option does not.
    """
    problem = ""
    if options.png and num_runs < 2:
        problem = "--png compares the curves of at least two runs: give their RUNs"
    elif options.png and options.csv:
        problem = "--csv lists runs, --png compares runs: give only one"
    elif options.limit is not None and num_runs:
        problem = "--limit shortens the list of all runs: give either --limit or RUNs"
    elif options.limit is not None and options.limit < 1:
        problem = f"--limit: invalid value {options.limit}; give a positive integer"
    if problem:
        raise UserError(problem, status=2)


def _first_rows(runs: Sequence[Run], order: str, limit: int | None = None) -> Sequence[RunRow]:
    """Return the first `limit` rows in an order, or all; the runs are oldest first."""
    if order == NEWEST and limit is not None:
        runs = runs[-limit:]  # do not read the others
    rows = [summary_table.read_row(run) for run in runs]
    return summary_table.sort_rows(rows, order)[:limit]


def _list(rows: Sequence[RunRow], options: Namespace, total: int) -> int:
    """Print rows in the format of the options; `total` is the number of runs."""
    if options.json:
        say(json.dumps([row._asdict() for row in rows], indent=2))
    elif options.csv:
        say(as_csv(RunRow._fields, rows), end="")
    elif options.markdown:
        say(summary_table.format_markdown(rows))
    elif not rows:
        say(f"no runs in {options.root}; train one with: {PROGRAM} fit")
    else:
        part = f"{len(rows):,} of " if len(rows) < total else ""
        say(f"{part}{plural(total, 'run')} in {options.root}")
        say(summary_table.format_table(rows))
        if options.limit is None and total > MANY_ROWS:
            say("for a shorter list: --limit 20, or --sort best --limit 20", file=sys.stderr)
    return 0


def _refuse_duplicates(runs: Sequence[Run]) -> None:
    known: set[Path] = set()
    for run in runs:
        folder = run.folder.resolve()
        if folder in known:
            raise UserError(f"{folder.name} is given twice; give each run once", status=2)
        known.add(folder)


def _compare(runs: Sequence[Run], output_format: str, png: Path | None) -> int:
    """Compare runs as `json`, `markdown` or `text`; save their curves if `png` is a path."""
    from mnist_lightning.evaluation import comparison, plots  # imports matplotlib and SciPy

    if png is not None and not png.parent.is_dir():
        problem = f"cannot save {png}: the directory {png.parent} does not exist"
        raise UserError(f"{problem}; create it", status=2)
    result = comparison.compare(runs)
    if png is not None:
        write_atomically(plots.png(plots.overlay_curves(result.histories)), png)
    if output_format == "json":
        facts = {
            "runs": [row._asdict() for row in result.rows],
            "trainings": {name: found._asdict() for name, found in result.trainings.items()},
            "settings": result.settings,
            "mcnemar": result.tests,
            "pools": result.groups,
            "missing": result.missing,
        }
        say(json.dumps(facts, indent=2))
    elif output_format == "markdown":
        say(_as_markdown(result))
    else:
        _show_comparison(result)
        if png is not None:
            say(f"curves: {png}")
    return 0


def _show_comparison(result: "Comparison") -> None:
    """Show a comparison as text."""
    if trainings := _training_lines(result):
        say("\n".join(map(printable, trainings)) + "\n")
    say(summary_table.format_table(result.rows))
    say("\nsettings that differ:" if result.settings else "\nall settings are equal")
    for place, (name, values) in enumerate(result.settings.items()):
        if place == MAX_SETTINGS:
            say(f"  … and {len(result.settings) - MAX_SETTINGS:,} more; --json lists all")
            break
        say(f"  {printable(shorten(name))}")
        texts = {run: shorten(format_setting(value)) for run, value in values.items()}
        for text in dict.fromkeys(texts.values()):
            names = ", ".join(_short(run) for run in texts if texts[run] == text)
            say(f"    {printable(names)}: {printable(text)}")
    say()
    for line in _lines(result):
        say(printable(line))


def _as_markdown(result: "Comparison") -> str:
    """Format a comparison as Markdown: a table of results, one of settings, and a list."""
    parts = ["\n".join(f"- {markdown(line)}" for line in _training_lines(result))]
    parts.append(summary_table.format_markdown(result.rows))
    names = list(dict.fromkeys(run for values in result.settings.values() for run in values))
    rows = [
        [name, *(shorten(format_setting(values[run])) for run in names)]
        for name, values in list(result.settings.items())[:MAX_SETTINGS]
    ]
    if rows:
        parts.append(markdown_table(["setting", *map(_short, names)], rows))
    if lines := _lines(result):
        parts.append("\n".join(f"- {markdown(line)}" for line in lines))
    return "\n\n".join(filter(None, parts))


def _training_lines(result: "Comparison") -> list[str]:
    """Return a sentence on each training."""
    return [f"{_short(name)}: {found.text}" for name, found in result.trainings.items()]


def _lines(result: "Comparison") -> list[str]:
    """Return the tests of significance, what is missing, and the spread over seeds."""
    tests = [_test_line(**test) for test in result.tests]
    return [*tests, *result.missing, *(_group_line(**group) for group in result.groups)]


def _short(name: str) -> str:
    return name.removeprefix("version_")


def _test_line(first: str, second: str, only_first: int, only_second: int, p: float) -> str:
    first, second = _short(first), _short(second)
    better = first if only_first > only_second else second
    verdict = f"{better} is better" if p < SIGNIFICANT else "not significant"
    return (
        f"{first} against {second}: only {first} is correct on {only_first:,} test images, "
        f"only {second} on {only_second:,}; McNemar's p = {p:.2g}: {verdict}"
    )


def _group_line(runs: Sequence[str], mean: dict[str, float], std: dict[str, float]) -> str:
    figures = [f"{name} {100 * mean[name]:.2f} ± {100 * std[name]:.2f} %" for name in mean]
    return (
        f"{', '.join(map(_short, runs))} differ only in their seed: {', '.join(figures)} "
        "(mean ± standard deviation)"
    )
