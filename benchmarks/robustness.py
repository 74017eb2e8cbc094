"""Print the accuracies of runs on corrupted images, from their reports, as one table.

    python benchmarks/robustness.py RUN…

Each column is the mean over the five severities of a corruption, on the first 1,000 test images.
"""

import argparse
import json
from pathlib import Path

from mnist_lightning.cli import report
from mnist_lightning.evaluation.report import FACTS
from mnist_lightning.runs import lookup


def report_accuracies(reference: str) -> tuple[str, dict[str, float]]:
    """Write the report of a run; return the run's name with its network, and its accuracies."""
    run, _ = lookup.find(reference, Path("lightning_logs"))
    if report.main([reference]) != 0:
        raise SystemExit(f"The report of {reference} failed.")
    facts = json.loads((run.folder / "report" / FACTS).read_text())
    robustness = facts["robustness"]
    means = {
        kind["name"]: sum(kind["accuracies"]) / len(kind["accuracies"])
        for kind in robustness["kinds"]
    }
    network = facts["config"]["model"]["network"]["class_path"].rsplit(".")[-1]
    accuracies = {"clean": robustness["undisturbed"], **means}
    return f"{run.reference} {network}", accuracies | {"mean": sum(means.values()) / len(means)}


def main() -> None:
    """Print a Markdown table with a row for each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    rows = [report_accuracies(reference) for reference in parser.parse_args().runs]
    columns = list(rows[0][1])
    print("| run | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, accuracies in rows:
        values = " | ".join(f"{100 * accuracies[column]:.1f}" for column in columns)
        print(f"| {name} | {values} |")


if __name__ == "__main__":
    main()
