"""Configurations of the search spaces, as a study would draw them."""

import optuna

from harness.config import TrialConfig
from search_spaces import load


def paper_configs(name, preset=None):
    """Return the configurations of the paper that a space begins with."""
    space = load(name, preset)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    configs = []
    for paper in space.paper:
        study.enqueue_trial(dict(paper))
        trial = study.ask()
        configs.append(TrialConfig.from_paths({**trial.params, **space.suggest(trial), **trial.params}))
    return configs
