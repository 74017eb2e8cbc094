"""What comes out of a sweep: its trials as lines and pictures, and its best configuration."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from mnist_lightning.evaluation.plots import default_style
from mnist_lightning.files import write_atomically
from mnist_lightning.text import printable

SHOWN = 12  # of the trials on a terminal, the newest
LEAST_FOR_IMPORTANCES = 4  # trials that came to their end


def described(params: dict[str, Any]) -> str:
    """Values by the last words of their options' names."""
    return "  ".join(f"{_short(name)} {_told(value)}" for name, value in params.items())


def _short(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _told(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def state_of(trial: FrozenTrial) -> str:
    """How a trial stands, in a few words."""
    if trial.state == TrialState.COMPLETE:
        return f"val {100 * (trial.value or 0):.2f} %"
    if trial.state == TrialState.FAIL:
        return f"failed: {trial.user_attrs.get('error', 'unknown')}"
    epochs = max(trial.intermediate_values, default=0)
    last = f", val {100 * trial.intermediate_values[epochs]:.2f} %" if epochs else ""
    return f"{'pruned after' if trial.state == TrialState.PRUNED else 'at'} epoch {epochs}{last}"


def line(trial: FrozenTrial) -> str:
    """A trial as a line."""
    run = Path(str(trial.user_attrs.get("run", ""))).name
    return f"trial {trial.number:3}  {state_of(trial)}  {described(trial.params)}  {run}"


def table(study: optuna.Study, count: int) -> Table:
    """How a sweep stands: its newest trials, and the best one."""
    trials = study.get_trials(deepcopy=False)
    ended = sum(trial.state.is_finished() for trial in trials)
    best = best_of(study)
    grid = Table(title=f"{ended} of {count} trials", title_justify="left", title_style="bold")
    grid.add_column("trial", justify="right")
    for name in ("state", "values", "run"):
        grid.add_column(name, overflow="fold")
    shown = trials[-SHOWN:]
    if best is not None and best.number not in [trial.number for trial in shown]:
        shown = [best, *shown[1:]]
    for trial in shown:
        is_best = best is not None and trial.number == best.number
        grid.add_row(
            str(trial.number),
            printable(state_of(trial)),
            printable(described(trial.params)),
            printable(Path(str(trial.user_attrs.get("run", ""))).name),
            style="bold green" if is_best else "",
        )
    return grid


def best_of(study: optuna.Study) -> FrozenTrial | None:
    """The trial of the highest value that came to its end; the first of equal ones."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(done, key=lambda trial: trial.value or 0) if done else None


def write(
    study: optuna.Study, best: FrozenTrial, config: dict[str, Any], folder: Path
) -> Sequence[Path]:
    """Write the best configuration, and pictures of the search; say where."""
    return [_best_config(best, config, folder / "best.yaml"), *_pictures(study, folder)]


def _best_config(best: FrozenTrial, config: dict[str, Any], path: Path) -> Path:
    about = printable(
        f"Trial {best.number} of the sweep {best.user_attrs.get('sweep')}: val/accuracy "
        f"{best.value:.4f}, {described(best.params)}"
    )
    text = f"# {about}\n\n{yaml.safe_dump(config, sort_keys=False)}"
    write_atomically(text.encode(), path)
    return path


@default_style()
def _pictures(study: optuna.Study, folder: Path) -> list[Path]:
    import matplotlib

    matplotlib.use("Agg")
    from optuna.visualization import matplotlib as drawn

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    draw: dict[str, Any] = {"history": drawn.plot_optimization_history}
    varied = {str(value) for trial in done for value in trial.params.items()}
    if len(done) >= LEAST_FOR_IMPORTANCES and len(varied) > len(done[0].params):
        draw["importances"] = drawn.plot_param_importances
    paths = []
    for name, plot in draw.items():
        with warnings.catch_warnings(action="ignore"):  # that the drawing may change one day
            axes = plot(study)
        axes.set_ylabel("val/accuracy" if name == "history" else "")
        content = io.BytesIO()
        axes.figure.savefig(content, format="png", dpi=110, bbox_inches="tight")
        matplotlib.pyplot.close(axes.figure)
        paths.append(folder / f"{name}.png")
        write_atomically(content.getvalue(), paths[-1])
    return paths
