"""The command `runs`: list the runs, or compare some of them.

Neither torch nor lightning is imported: five hundred runs are listed in a second.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from mnist_lightning.cli.parser import CommandParser, runs_root
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.runs import lookup, run_directory
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.runs.summary_table import BEST, NEWEST, Standing, ordered, standing, table
from mnist_lightning.text import as_csv, say


def main(arguments: list[str]) -> int:
    """List the runs, or compare those that are named."""
    description = "List the runs; compare those that are named."
    parser = CommandParser("runs", description, "3 4 --png curves.png")
    parser.add_argument("runs", nargs="*", metavar="RUN", help="compare these")
    parser.add_argument(
        "--sort",
        choices=(NEWEST, BEST, *Standing._fields),
        metavar="ORDER",
        help=f"{NEWEST} or {BEST} first, or by a column: {', '.join(Standing._fields)}",
    )
    parser.add_form()
    parser.add_argument(
        "--png", type=Path, metavar="FILE", help="where to draw the curves of those named"
    )
    parser.add_root()
    options = parser.parse_args(arguments)
    root = runs_root(options.root)
    if (
        options.png
        and len([one for named in options.runs for one in lookup.expand_references(named)]) < 2
    ):
        raise UserError("--png draws the curves of runs side by side: name two or more", status=2)
    if options.png and options.csv:
        raise UserError("--csv lists the runs, --png draws them side by side: give one", status=2)
    if options.runs:
        asked = [one for reference in options.runs for one in lookup.expand_references(reference)]
        chosen = [lookup.find(reference, root)[0] for reference in asked]
        _refuse_the_same(chosen)
        if len(chosen) > 1 and not options.csv:
            from mnist_lightning.evaluation import comparison  # brings matplotlib and SciPy

            unasked = root / "comparison.png" if root.is_dir() and not options.json else None
            png = options.png or unasked
            return comparison.show(chosen, options.json, png)
    else:
        chosen = list(run_directory.list_runs(root))
    as_it_is = "run" if options.runs else NEWEST
    rows = ordered([standing(run) for run in chosen], options.sort or as_it_is)
    if options.json:
        say(json.dumps([each._asdict() for each in rows], indent=2))
    elif options.csv:
        say(as_csv(Standing._fields, rows), end="")
    elif not rows:
        say(f"no runs in {root}; make one with: {PROGRAM} fit")
    else:
        show(rows, root)
    return 0


def _refuse_the_same(chosen: Sequence[Run]) -> None:
    folders = [run.folder.resolve() for run in chosen]
    twice = next((folder.name for folder in folders if folders.count(folder) > 1), None)
    if twice is not None:
        raise UserError(f"{twice} is named twice", status=2)


def show(rows: Sequence[Standing], root: Path) -> None:
    """Print rows as a table."""
    say(f"{len(rows)} run{'s' * (len(rows) != 1)} in {root}")
    say(table(rows))
