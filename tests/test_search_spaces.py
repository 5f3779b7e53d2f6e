"""Contract tests over every search space, and holding parts of one."""

import optuna
import pytest

from harness.config import TrialConfig
from harness.subspace import explore, parse_fixed
from search_spaces import load, names

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def test_the_papers_systems_each_have_a_space():
    assert {"none", "noise", "cnn", "unet", "all"} <= set(names())


def test_an_unknown_space_names_the_known_ones():
    with pytest.raises(ValueError, match="space='vae': must be one of all, cnn, noise, none, unet"):
        load("vae")


@pytest.mark.parametrize("name", names())
class TestEverySpace:
    def test_every_draw_is_a_configuration(self, name):
        space = load(name)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
        kinds = set()
        for _ in range(200):
            trial = study.ask()
            constants = space.suggest(trial)
            kinds.add(TrialConfig.from_paths({**trial.params, **constants}).mapper.kind)
        assert kinds == {"linear", "fc", "many_to_one"}

    def test_the_papers_configurations_lie_in_the_space_and_leave_nothing_to_chance(self, name):
        space = load(name)
        study = optuna.create_study()
        for paper in space.paper:
            study.enqueue_trial(dict(paper))
        for paper in space.paper:
            trial = study.ask()
            space.suggest(trial)
            assert trial.params == dict(paper)
            for path, distribution in trial.distributions.items():
                assert distribution._contains(distribution.to_internal_repr(paper[path])), path

    def test_a_stored_trial_replays_its_parameters(self, name):
        space = load(name)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=2))
        trial = study.ask()
        constants = space.suggest(trial)
        assert space.suggest(study.trials[0]) == constants

    def test_its_docstring_carries_its_command(self, name):
        module = __import__(f"search_spaces.{name}", fromlist=[name])
        assert f"python -m harness.study --space {name}" in module.__doc__


class TestFix:
    def fix(self, *assignments, space="unet"):
        return parse_fixed(assignments, explore(load(space)), space=space)

    def test_values_come_back_as_the_spaces_own_types(self):
        fixed = self.fix(
            "reprogrammer/depth=3",
            "optimiser/lr=1e-3",
            "mapper/kind=fc",
            "reprogrammer/has_input_skip=true",
            "training/batch_size=16",
        )
        assert fixed == {
            "reprogrammer/depth": 3,
            "optimiser/lr": 1e-3,
            "mapper/kind": "fc",
            "reprogrammer/has_input_skip": True,
            "training/batch_size": 16,
        }
        assert [type(value) for value in fixed.values()] == [int, float, str, bool, int]

    def test_a_constant_may_be_fixed_to_what_it_is(self):
        assert self.fix("reprogrammer/kind=unet") == {}

    @pytest.mark.parametrize(
        ("assignment", "message"),
        [
            ("reprogrammer/deep=3", r"space unet has no path reprogrammer/deep; it has mapper/assignment"),
            ("reprogrammer/depth", r"must be PATH=VALUE"),
            ("reprogrammer/depth=9", r"reprogrammer/depth must be a whole number from 2 to 4"),
            ("reprogrammer/depth=3.5", r"must be a whole number from 2 to 4"),
            ("optimiser/lr=high", r"optimiser/lr must be a number from 1e-05 to 0.03, drawn by its logarithm"),
            ("optimiser/lr=1", r"optimiser/lr must be a number from 1e-05 to 0.03"),
            ("mapper/kind=svm", r"mapper/kind must be one of linear, fc, many_to_one"),
            ("reprogrammer/is_residual=maybe", r"must be one of false, true"),
            ("reprogrammer/kind=cnn", r"space unet holds reprogrammer/kind at unet"),
        ],
    )
    def test_what_is_not_in_the_space_is_refused(self, assignment, message):
        with pytest.raises(ValueError, match=message):
            self.fix(assignment)

    def test_a_path_is_fixed_once(self):
        with pytest.raises(ValueError, match="reprogrammer/depth is already fixed to 3"):
            self.fix("reprogrammer/depth=3", "reprogrammer/depth=4")

    def test_a_conditional_path_is_found(self):
        assert self.fix("reprogrammer/width=8", "reprogrammer/kind=cnn", space="all") == {
            "reprogrammer/width": 8,
            "reprogrammer/kind": "cnn",
        }
