"""Show the trials of a sweep while they run, and their number by state."""

from threading import Event

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.live import Live
from rich.table import Table

from mnist_lightning.cli import console
from mnist_lightning.text import plural, printable
from mnist_lightning.tuning import results
from mnist_lightning.tuning import study as studies
from mnist_lightning.tuning.trial_runner import Plan

SHOWN_TRIALS = 12  # the newest, on a terminal
STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "to be continued",
}


def search(study: optuna.Study, plan: Plan, stop: Event) -> int:
    """Run the trials; show them as a table on a terminal, else as lines; return the exit status."""
    out = console.make_console()
    before = results.started_trials(study, plan.space)
    if plan.space.points is not None:  # those that failed are tried again
        before = [trial for trial in before if trial.state != TrialState.FAIL]
    known = f", {len(before)} of them started before" if before else ""
    trials = f"{plural(plan.trials, 'trial')}{known}, {plan.workers} in parallel"
    console.show_line(out, f"sweep {study.study_name}: {trials}")

    def show_end(trial: FrozenTrial) -> None:
        if not out.is_terminal:
            console.show_line(out, results.format_trial(trial))

    with Live(console=out, auto_refresh=False, transient=True) as live:

        def refresh() -> None:
            if out.is_terminal:
                live.update(_table(study, plan, plan.trials), refresh=True)

        status = studies.search(study, plan, stop, show_end, refresh)
    trials_now = results.started_trials(study, plan.space)
    if out.is_terminal:
        out.print(_table(study, plan, len(trials_now)))
    states = [trial.state for trial in trials_now]
    # At the end of a sweep, only trials of other machines still run.
    words = STATES if status else STATES | {TrialState.RUNNING: "running in another sweep"}
    counts = [f"{states.count(each)} {word}" for each, word in words.items() if each in states]
    console.show_line(out, f"{plural(len(states), 'trial')}: {', '.join(counts)}")
    if status:
        console.show_line(out, "Interrupted. Repeat the command to continue.")
    return status


def _table(study: optuna.Study, plan: Plan, count: int) -> Table:
    """Show the newest trials and the best one."""
    trials = results.started_trials(study, plan.space)
    ended = sum(trial.state.is_finished() for trial in trials)
    best = results.best_trial(study)
    texts = ["state", "values", "run"]
    table = console.make_table(f"{ended} of {plural(count, 'trial')}", ["trial", *texts], texts)
    shown = trials[-SHOWN_TRIALS:]
    if best is not None and best.number not in [trial.number for trial in shown]:
        shown = [best, *shown[1:]]
    for trial in shown:
        cells = (results.state(trial), results.values(trial.params), results.run_name(trial))
        style = "bold green" if best is not None and trial.number == best.number else ""
        table.add_row(str(trial.number), *map(printable, cells), style=style)
    return table
