"""Samplers whose values depend on the seed and the trial, not on the process that draws them."""

from collections.abc import Callable
from typing import Any
from zlib import crc32

import optuna
from numpy.random import SeedSequence
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    # Running trials count as bad ones, so that parallel workers try different values.
    "tpe": lambda seed: TPESampler(seed=seed, constant_liar=True),
    "random": lambda seed: RandomSampler(seed=seed),
    "grid": lambda seed: RandomSampler(seed=seed),  # not used: the queue chooses the values
}


class SeededSampler(BaseSampler):
    """Draws the values of each trial with a seed of its own.

    A sampler with one stream of random numbers would draw the same values again in a sweep that
    continues, and in each of several sweeps that start at the same time and share a database.

    Args:
        kind: a key of `SAMPLERS`.
        seed: the seed of the sweep.
    """

    def __init__(self, kind: str, seed: int) -> None:
        self.kind = kind
        self.seed = seed
        self._relative: dict[int, BaseSampler] = {}

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the options whose values are drawn together."""
        sampler = self._relative[trial.number] = self._sampler(trial, "")
        return sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw the values of the options that are drawn together."""
        return self._relative.pop(trial.number).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw the value of one option."""
        sampler = self._sampler(trial, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def _sampler(self, trial: FrozenTrial, option: str) -> BaseSampler:
        """Return a sampler with a seed for one option of a trial."""
        entropy = SeedSequence([self.seed, trial.number, crc32(option.encode())])
        return SAMPLERS[self.kind](int(entropy.generate_state(1)[0]))
