"""What runs still read of disturbed pictures: their reports' figures in one table.

    python benchmarks/robustness.py RUN…

Each column is the mean over a disturbance's five grades, of the run's first 2,000 test images.
"""

import argparse
import json
from pathlib import Path

from mnist_lightning.cli import report
from mnist_lightning.evaluation.report import FACTS
from mnist_lightning.runs import lookup


def row(reference: str) -> tuple[str, dict[str, float]]:
    """Make a run's report; return the run's network and its accuracies."""
    run, _ = lookup.find(reference, Path("lightning_logs"))
    if report.main([reference]) != 0:
        raise SystemExit(f"no report of {reference}")
    facts = json.loads((run.folder / "report" / FACTS).read_text())
    robustness = facts["robustness"]
    kinds = {kind["name"]: kind["accuracies"] for kind in robustness["kinds"]}
    means = {name: sum(grades) / len(grades) for name, grades in kinds.items()}
    everything = {"undisturbed": robustness["undisturbed"], **means}
    everything["mean"] = sum(means.values()) / len(means)
    return (
        f"{run.reference} {facts['config']['model']['network']['class_path'].rsplit('.')[-1]}",
        everything,
    )


def main() -> None:
    """Print a Markdown table, a run a row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    rows = [row(reference) for reference in parser.parse_args().runs]
    names = list(rows[0][1])
    print("| run | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for name, accuracies in rows:
        print(f"| {name} | " + " | ".join(f"{100 * accuracies[of]:.1f}" for of in names) + " |")


if __name__ == "__main__":
    main()
