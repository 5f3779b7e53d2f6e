"""The paper's eight systems on a tiny backbone and made-up features."""

from functools import cache

import torch

from harness.config.trial import TrialConfig
from harness.training.learner import make_learner
from tests.conftest import make_data, make_vggish_data
from tests.support.drawn import paper_configs

CPU = torch.device("cpu")


def config_of(name, **changes):
    """Return the paper's configuration of a system, with changes by path; forests have 10 trees."""
    few_trees = {"system/n_trees": 10} if name == "random_forest" else {}
    return TrialConfig.from_paths({**_paper_paths(name), **few_trees, **changes})


@cache
def _paper_paths(name):
    return paper_configs(name)[0].to_paths()


def data_of(name, *, seed=0, **sizes):
    """Return what a system hears."""
    make = make_vggish_data if config_of(name).system.inputs == "vggish" else make_data
    return make(seed=seed, **sizes)


def learner_of(name, backbone, data, *, epochs=2, seed=0, precision="fp32", **changes):
    """Return what learns a system, at its start; `backbone` is withheld from a system that needs none."""
    config = config_of(name, **changes)
    return make_learner(
        config,
        backbone=backbone if config.system.inputs == "log_mel" else None,
        data=data,
        epochs=epochs,
        seed=seed,
        device=CPU,
        precision=precision,
    )


def figures(results):
    """Return all of some epochs but their times."""
    return [(r.epoch, r.lr, r.train_loss, r.validation_loss, r.scores) for r in results]
