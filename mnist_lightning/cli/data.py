"""The command `data`: show where each data set is, and whether it is complete; download it."""

from pathlib import Path

from mnist_lightning.cli import suggestions
from mnist_lightning.cli.parser import CommandParser
from mnist_lightning.data import folder_cache
from mnist_lightning.data.datasets import SOURCES
from mnist_lightning.data.mnist_download import DamagedError
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.text import say


def make_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser("data", "Show the state of data sets; download them.", "mnist --fetch")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SOURCES))
    parser.add_argument("--fetch", action="store_true", help="download the given data sets")
    clear_help = (
        "delete the stored 28x28 versions of your own images; the next run converts them again"
    )
    parser.add_argument("--clear_cache", action="store_true", help=clear_help)
    parser.add_argument("--data.data_dir", dest="data_dir", default="data", metavar="DIR")
    return parser


def main(arguments: list[str]) -> int:
    """Show the state of the given data sets, or of all; return 1 if one is damaged."""
    options = make_parser().parse_args(arguments)
    for name in options.names:
        if name not in SOURCES:
            expected = f"{suggestions.introduce_choices(name, SOURCES)}{', '.join(SOURCES)}"
            raise UserError(f"unknown data set {name!r}; {expected}", status=2)
    if options.fetch and not options.names:
        raise UserError(f"--fetch needs the name of a data set: {PROGRAM} data mnist --fetch", 2)
    if options.clear_cache and (options.names or options.fetch):
        raise UserError(
            "--clear_cache deletes the stored versions of your own images: give it alone", status=2
        )
    if options.clear_cache:
        say(f"deleted {_megabytes(folder_cache.clear())} in {folder_cache.cache_folder()}")
        return 0
    data_dir = Path(options.data_dir)
    states = []
    for name in options.names or SOURCES:
        if options.fetch:
            SOURCES[name].fetch(data_dir)
        states.append(show(name, data_dir))
    if not options.names and (size := folder_cache.size()):
        clear = f"delete it: {PROGRAM} data --clear_cache"
        place = f"{_megabytes(size)} in {folder_cache.cache_folder()}"
        say(f"{'own images':<14} cached   {place}; {clear}")
    return 1 if "damaged" in states else 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def show(name: str, data_dir: Path) -> str:
    """Print the state of a data set; return `intact`, `complete`, `missing` or `damaged`."""
    source = SOURCES[name]
    try:
        data = source.load(data_dir)
        state = "intact" if source.has_checksums else "complete"
        place = data_dir / source.folder if source.folder else "needs no download"
        detail = (
            f"{len(data.train_labels):,} + {len(data.test_labels):,} images, "
            f"{place}, checksum {data.checksum[:12]}"
        )
    except FileNotFoundError:
        option = "" if data_dir == Path("data") else f" --data.data_dir {data_dir}"
        fetch = f"{PROGRAM} data {name} --fetch{option}"
        state, detail = "missing", f"not in {data_dir / source.folder}; download it: {fetch}"
    except DamagedError as error:
        state, detail = "damaged", str(error)
    say(f"{name:<14} {state:<8} {source.description}\n{'':<15}{detail}")
    return state
