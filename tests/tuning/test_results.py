"""The results of a sweep."""

from pathlib import Path

import optuna
import pytest

from mnist_lightning.tuning import results

pytestmark = pytest.mark.slow


def test_the_attributes_of_a_trial_are_made_printable(tmp_path: Path) -> None:
    study = optuna.create_study()
    trial = study.ask()
    trial.set_user_attr("sweep", "x\n\x1b[31mmodel: {}")
    study.tell(trial, 0.5)
    assert results.format_trial(study.trials[0])
    results.write(study, study.trials[0], {"trainer": {}}, tmp_path)
    lines = (tmp_path / "best.yaml").read_text().splitlines()
    assert lines[0].startswith(r"# Trial 0 of the sweep x\n\x1b[31mmodel: {}: val/accuracy 0.5")
    assert lines[1:] == ["", "trainer: {}"]
