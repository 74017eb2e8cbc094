"""The command `runs`: list the runs, or compare some of them.

Torch and Lightning are not imported: listing five hundred runs takes one second.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from mnist_lightning.cli.parser import CommandParser
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.runs import lookup, run_directory, summary_table
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.runs.summary_table import BEST, NEWEST, RunRow
from mnist_lightning.text import as_csv, say


def main(arguments: list[str]) -> int:
    """List all runs, or compare the given ones."""
    description = "List all runs, or compare the given ones."
    parser = CommandParser("runs", description, "3 4 --png curves.png")
    parser.add_argument("runs", nargs="*", metavar="RUN", help="the runs to compare")
    orders = (NEWEST, BEST, *RunRow._fields)
    sort_help = f"{NEWEST} or {BEST} first, or by a column: {', '.join(RunRow._fields)}"
    parser.add_argument("--sort", choices=orders, metavar="ORDER", help=sort_help)
    parser.add_output_format()
    png_help = "where to save the curves of the given runs"
    parser.add_argument("--png", type=Path, metavar="FILE", help=png_help)
    parser.add_root()
    options = parser.parse_args(arguments)
    root = options.root
    references = [run for argument in options.runs for run in lookup.expand_references(argument)]
    if options.png and len(references) < 2:
        raise UserError("--png compares the curves of runs: name at least two", status=2)
    if options.png and options.csv:
        raise UserError("--csv lists the runs, --png compares them: give one", status=2)
    if options.runs:
        selected = [lookup.find(reference, root)[0] for reference in references]
        _refuse_duplicates(selected)
        if len(selected) > 1 and not options.csv:
            from mnist_lightning.evaluation import comparison  # imports matplotlib and SciPy

            default = root / "comparison.png" if root.is_dir() and not options.json else None
            return comparison.show(selected, options.json, options.png or default)
    else:
        selected = list(run_directory.list_runs(root))
    default_order = "run" if options.runs else NEWEST
    unsorted = [summary_table.read_row(run) for run in selected]
    rows = summary_table.sort_rows(unsorted, options.sort or default_order)
    if options.json:
        say(json.dumps([row._asdict() for row in rows], indent=2))
    elif options.csv:
        say(as_csv(RunRow._fields, rows), end="")
    elif not rows:
        say(f"no runs in {root}; make one with: {PROGRAM} fit")
    else:
        say(f"{len(rows)} run{'s' * (len(rows) != 1)} in {root}")
        say(summary_table.format_table(rows))
    return 0


def _refuse_duplicates(runs: Sequence[Run]) -> None:
    folders = [run.folder.resolve() for run in runs]
    duplicate = next((folder.name for folder in folders if folders.count(folder) > 1), None)
    if duplicate is not None:
        raise UserError(f"{duplicate} is named twice; name each run once", status=2)
