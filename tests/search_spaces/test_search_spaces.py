"""Contract tests over every search space, and holding parts of one."""

import importlib
import re
import sys

import optuna
import pytest

import search_spaces
from harness.config.literature import SYSTEMS
from harness.config.space import configurations, explore, explored, parse_fixed
from search_spaces import PRESETS, Space, load, names
from tests.support.drawn import paper_configs

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def test_the_papers_systems_each_have_a_space():
    assert {*SYSTEMS, "all"} <= set(names())


def test_an_unknown_space_names_the_known_ones():
    with pytest.raises(ValueError, match=r"space='vae': must be one of .*\bunet"):
        load("vae")


def branching(trial):
    kind = trial.suggest_categorical("mapper/kind", ["linear", "fc"])
    return {"training/targets": "hard" if kind == "linear" else "soft"}


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"reprogrammer/dropout": 0.1}, "reprogrammer/dropout=0.1: unknown path"),
        ({"reprogrammer/kind": "unet", "reprogrammer/depth": "3"}, "reprogrammer/depth='3': must be a whole number"),
        ({"reprogrammer/kind": "cnn", "reprogrammer/kernel": 4}, "reprogrammer/kernel=4: must be odd"),
    ],
)
def test_a_space_that_draws_what_no_trial_can_be_is_refused(constants, message):
    with pytest.raises(ValueError, match=rf"space mine draws an invalid configuration: .*({message})"):
        explore(Space("mine", lambda trial: constants, ({},), "mine"))


def test_a_rare_branch_that_no_trial_can_be_is_refused():
    def suggest(trial):
        kernel = trial.suggest_int("reprogrammer/kernel", 1, 31)
        return {"reprogrammer/kind": "cnn", "reprogrammer/kernel": 4 if kernel == 7 else 3}

    with pytest.raises(ValueError, match="space mine draws an invalid configuration: reprogrammer/kernel=4"):
        explore(Space("mine", suggest, ({},), "mine"))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("PAPER = {}\n", r"bare\.py: lacks suggest; a space is"),
        ("def suggest(trial):\n    return {}\n", r"bare\.py: lacks PAPER; a space is"),
        ("", r"bare\.py: lacks suggest and PAPER; a space is"),
    ],
)
def test_a_module_that_is_no_space_is_named(tmp_path, monkeypatch, code, message):
    with_module(tmp_path, monkeypatch, code)
    with pytest.raises(ValueError, match=message):
        load("bare")


def test_a_space_without_a_docstring_goes_by_its_name(tmp_path, monkeypatch):
    with_module(tmp_path, monkeypatch, "PAPER = {}\ndef suggest(trial):\n    return {}\n")
    assert load("bare").summary == "bare"


def with_module(folder, monkeypatch, code):
    (folder / "bare.py").write_text(code)
    monkeypatch.setattr(search_spaces, "__path__", [*search_spaces.__path__, str(folder)])
    monkeypatch.delitem(sys.modules, "search_spaces.bare", raising=False)
    importlib.invalidate_caches()


NAMES = {
    **{name: {name} for name in SYSTEMS},
    "all": set(SYSTEMS),
    "normalisation": {"none", "noise", "cnn", "unet"},
    "recipe": {"none", "noise", "cnn", "unet"},
}


@pytest.mark.parametrize("name", names())
class TestEverySpace:
    def test_every_draw_is_a_configuration(self, name):
        kinds = {config.name for config in configurations(explored(name), {})}
        assert name not in NAMES or kinds == NAMES[name]

    def test_the_papers_configurations_lie_in_the_space_and_leave_nothing_to_chance(self, name):
        space = load(name)
        study = optuna.create_study()
        for paper in space.paper:
            study.enqueue_trial(dict(paper))
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

    def test_its_docstring_carries_its_command_and_its_best_result(self, name):
        module = __import__(f"search_spaces.{name}", fromlist=[name])
        assert f"python -m harness.study --space {name}" in module.__doc__
        assert re.search(r"Best on the demo set with [^:]+: macro-F1 0\.\d{3} on validation", module.__doc__)


class TestPreset:
    @pytest.mark.parametrize("preset", PRESETS)
    @pytest.mark.parametrize("name", ["unet", "finetune"])
    def test_every_configuration_has_the_recipe_and_no_study_searches_it(self, name, preset):
        recipe = PRESETS[preset].paths
        axes = explored(name, preset)
        assert not set(axes.drawn) & set(recipe)
        for config in (*configurations(axes, {}), *paper_configs(name, preset)):
            paths = config.to_paths()
            assert {path: paths[path] for path in recipe} == recipe

    def test_the_released_recipe_differs_in_each_piece_that_the_literature_names(self):
        (paper,), (released,) = paper_configs("unet", "paper"), paper_configs("unet", "released")
        differing = {path for path, value in released.to_paths().items() if paper.to_paths().get(path) != value}
        assert differing == {
            "optimiser/lr",
            "optimiser/beta1",
            "optimiser/weight_decay",
            "schedule/kind",
            "training/targets",
            "training/batch_size",
            "augmentation/kind",
            "augmentation/max_mels",
            "augmentation/max_seconds",
            "front_end/via_hz",
            "front_end/is_peak_normalised",
            "front_end/clip_seconds",
        }

    def test_every_piece_of_the_recipe_is_an_axis_of_the_recipe_space(self):
        axes = explored("recipe")
        assert set(PRESETS["released"].paths) <= set(axes.drawn)

    @pytest.mark.parametrize(
        ("name", "preset", "message"),
        [
            ("unet", "mine", r"preset='mine': must be one of paper, released"),
            ("recipe", "paper", r"preset=paper: cannot go with space recipe, which compares recipes itself"),
            ("normalisation", "paper", r"cannot go with space normalisation, which compares recipes itself"),
            ("mean_teacher", "paper", r"cannot go with space mean_teacher; a preset is the recipe of systems"),
            ("all", "released", r"cannot go with space all; a preset is the recipe of systems that read log-mel"),
        ],
    )
    def test_what_a_preset_cannot_hold_is_refused(self, name, preset, message):
        with pytest.raises(ValueError, match=message):
            load(name, preset)

    def test_what_a_preset_holds_cannot_be_fixed_to_something_else(self):
        axes = explored("unet", "released")
        with pytest.raises(ValueError, match=r"space unet holds training/targets at soft"):
            parse_fixed(["training/targets=hard"], axes, space="unet")


class TestTheNormalisationTable:
    def test_it_runs_every_cell_three_times_and_once_before_any_twice(self):
        space = load("normalisation")
        cells = [space.cell(config.to_paths()) for config in paper_configs("normalisation")]
        assert len(set(cells[:20])) == 20
        assert cells == 3 * cells[:20]
        assert {row for row, _ in cells} == {"no reprogrammer", "noise", "CNN", "CNN + BatchNorm", "U-Net"}
        assert {column for _, column in cells} == {"none", "AudioSet", "data set", "learned affine"}

    def test_its_reprogrammers_are_the_papers(self):
        for config in paper_configs("normalisation"):
            if config.name != "cnn" or config.reprogrammer.norm == "none":
                assert config.reprogrammer == paper_configs(config.name)[0].reprogrammer


class TestWhatASpaceNeeds:
    def test_only_configurations_in_reach_of_what_is_fixed_count(self):
        axes = explored("all")
        assert {c.system.inputs for c in configurations(axes, {})} == {"log_mel", "vggish"}
        assert {c.system.inputs for c in configurations(axes, {"system/kind": "random_forest"})} == {"vggish"}
        unet = configurations(axes, {"system/kind": "reprogramming", "reprogrammer/kind": "unet"})
        assert {c.name for c in unet} == {"unet"}


class TestFix:
    def fix(self, *assignments, space="unet"):
        return parse_fixed(assignments, explored(space), space=space)

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
            ("reprogrammer/init_scale=0", r"init_scale must be a number from 0\.05 to 1\.0"),
            ("mapper/kind=svm", r"mapper/kind must be one of linear, fc, many_to_one"),
            ("reprogrammer/is_residual=maybe", r"must be one of false, true"),
            ("reprogrammer/kind=cnn", r"space unet holds reprogrammer/kind at unet"),
        ],
    )
    def test_what_is_not_in_the_space_is_refused(self, assignment, message):
        with pytest.raises(ValueError, match=message):
            self.fix(assignment)

    def test_what_some_branches_hold_at_another_value_is_refused(self):
        with pytest.raises(
            ValueError,
            match=r"space all holds mapper/is_calibrated at true in some configurations, .*reprogrammer/kind=none",
        ):
            self.fix("mapper/is_calibrated=false", space="all")

    @pytest.mark.parametrize(
        ("assignments", "fixed"),
        [
            (["mapper/is_calibrated=true"], {"mapper/is_calibrated": True}),
            (
                ["mapper/is_calibrated=false", "reprogrammer/kind=unet"],
                {"mapper/is_calibrated": False, "reprogrammer/kind": "unet"},
            ),
            (["system/kind=finetune"], {"system/kind": "finetune"}),
        ],
    )
    def test_what_no_branch_in_reach_contradicts_is_accepted(self, assignments, fixed):
        assert self.fix(*assignments, space="all") == fixed

    def test_a_constant_that_differs_between_branches_is_not_fixed_by_itself(self):
        axes = explore(Space("mine", branching, ({},), "mine"))
        with pytest.raises(
            ValueError, match=r"space mine holds training/targets at soft in some config.*mapper/kind=fc"
        ):
            parse_fixed(["training/targets=hard"], axes, space="mine")
        both = parse_fixed(["training/targets=hard", "mapper/kind=linear"], axes, space="mine")
        assert both == {"mapper/kind": "linear"}

    def test_a_path_is_fixed_once(self):
        with pytest.raises(ValueError, match="reprogrammer/depth is already fixed to 3"):
            self.fix("reprogrammer/depth=3", "reprogrammer/depth=4")

    def test_a_conditional_path_is_found(self):
        assert self.fix("reprogrammer/width=8", "reprogrammer/kind=cnn", space="all") == {
            "reprogrammer/width": 8,
            "reprogrammer/kind": "cnn",
        }
