"""The results of a sweep: its trials as text and plots, and its best configuration."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from mnist_lightning.evaluation.plots import default_style
from mnist_lightning.files import write_atomically
from mnist_lightning.text import printable, shorten
from mnist_lightning.tuning.search_space import SearchSpace, point_key
from mnist_lightning.tuning.trial_queue import is_discarded

MIN_TRIALS_FOR_IMPORTANCES = 4  # finished ones


def values(params: dict[str, Any]) -> str:
    """Format the values of a trial, each after the last part of its option."""
    texts = {n: f"{v:.4g}" if isinstance(v, float) else v for n, v in params.items()}
    return shorten("  ".join(f"{name.rsplit('.', 1)[-1]} {text}" for name, text in texts.items()))


def state(trial: FrozenTrial) -> str:
    """Describe the state of a trial in a few words."""
    if trial.state == TrialState.COMPLETE:
        return f"val {100 * float(trial.value or 0):.2f} %"
    if trial.state == TrialState.FAIL:
        return shorten(f"failed: {trial.user_attrs.get('error', 'unknown')}")
    epochs = max(trial.intermediate_values, default=0)
    last = f", val {100 * trial.intermediate_values[epochs]:.2f} %" if epochs else ""
    return f"{'pruned after' if trial.state == TrialState.PRUNED else 'at'} epoch {epochs}{last}"


def format_trial(trial: FrozenTrial) -> str:
    """Format a trial as a line."""
    return f"trial {trial.number:3}  {state(trial)}  {values(trial.params)}  {run_name(trial)}"


def run_name(trial: FrozenTrial) -> str:
    """Return the name of a trial's run directory; empty if it has none."""
    return Path(str(trial.user_attrs.get("run", ""))).name


def started_trials(study: optuna.Study, space: SearchSpace) -> list[FrozenTrial]:
    """Return the trials; if the space has a list of points, only the newest one of each point."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if not is_discarded(trial)]
    if space.points is None:
        return trials
    newest = {point_key(trial.params): trial for trial in trials}
    found = [newest.get(point_key(point)) for point in space.points]
    return sorted(filter(None, found), key=lambda trial: trial.number)


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """Return the finished trial with the highest value; the first of equal ones."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(finished, key=lambda trial: trial.value or 0) if finished else None


def write(
    study: optuna.Study, best: FrozenTrial, config: dict[str, Any], folder: Path
) -> Sequence[Path]:
    """Write the best configuration and plots of the search; return their paths."""
    path = folder / "best.yaml"
    header = f"Trial {best.number} of the sweep {best.user_attrs.get('sweep')}: val/accuracy "
    header += f"{best.value:.4f}, {values(best.params)}"
    text = f"# {printable(header)}\n\n{yaml.safe_dump(config, sort_keys=False)}"
    write_atomically(text.encode(), path)
    return [path, *_write_plots(study, folder)]


@default_style()
def _write_plots(study: optuna.Study, folder: Path) -> list[Path]:
    import matplotlib

    matplotlib.use("Agg")
    from optuna.visualization import matplotlib as visualization

    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    plots: dict[str, Any] = {"history": visualization.plot_optimization_history}
    items = {str(item) for trial in finished for item in trial.params.items()}
    if len(finished) >= MIN_TRIALS_FOR_IMPORTANCES and len(items) > len(finished[0].params):
        plots["importances"] = visualization.plot_param_importances
    paths = []
    for name, plot in plots.items():
        with warnings.catch_warnings(action="ignore"):  # the interface is experimental
            axes = plot(study)
        axes.set_ylabel("val/accuracy" if name == "history" else "")
        content = io.BytesIO()
        axes.figure.savefig(content, format="png", dpi=110, bbox_inches="tight")
        matplotlib.pyplot.close(axes.figure)
        paths.append(folder / f"{name}.png")
        write_atomically(content.getvalue(), paths[-1])
    return paths
