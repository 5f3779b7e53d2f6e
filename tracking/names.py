"""Every metric, tag and parameter name that MLflow gets to see.

Conventions: `split/name` for what is measured each epoch (`step` is the epoch, from 1), bare names for what a
trial ends with (`step` is 0, which makes the UI draw bars). A parameter `part/name` is of a trial's configuration, one
with a bare name is a term of its study, such as `precision`. F1 and mAP are fractions, losses nats. The UI groups its
charts by what stands before the last `/` and has no logarithmic axes, hence the `log10` twins.
"""

import hashlib

# What a trial ends with.
MACRO_F1 = "macro_f1"
POSITIVE_F1 = "positive_f1"
MEAN_AVERAGE_PRECISION = "map"
PARAMS = "params"
PARAMS_LOG10 = "params_log10"
EPOCHS = "epochs"
SECONDS = "seconds"

# What every epoch brings.
VAL_MACRO_F1 = "val/macro_f1"
LR = "lr"

# What a run of an evaluation ends with besides, on the test split.
TEST_MACRO_F1 = "test/macro_f1"

# Tags of a run.
HARNESS_KEY = "harness_key"
KIND = "kind"
STUDY = "study"
OPTUNA_STATE = "optuna_state"
REASON = "reason"
DESCRIPTION = "mlflow.note.content"
TRIAL_KIND = "trial"
STUDY_KIND = "study"
EVALUATION_KIND = "evaluation"
EVALUATION_RUN_KIND = "evaluation-run"
SYSTEM = "system"
SOURCE_STUDY = "source_study"
SOURCE_TRIAL = "source_trial"
SEED_INDEX = "seed_index"
CONFIG_DIGEST = "config_digest"

# Parameter paths of which the views make columns and axes.
SYSTEM_KIND = "system/kind"
REPROGRAMMER = "reprogrammer/kind"
MAPPER = "mapper/kind"
SCHEDULE = "schedule/kind"

# Tags of an experiment.
LABELS = "labels"

# Okabe and Ito's palette, told apart by colour-blind readers; one colour for one system, in all charts.
_COLOURS = {
    "unet": "#0072B2",
    "cnn": "#E69F00",
    "noise": "#009E73",
    "none": "#666666",
    "finetune": "#D55E00",
    "cnn_baseline": "#CC79A7",
    "mean_teacher": "#56B4E9",
    "random_forest": "#8C6D1F",
}
_OTHER_COLOURS = ("#D55E00", "#CC79A7", "#56B4E9", "#8C6D1F")


def experiment_name(data: str, backbone: str) -> str:
    """Name the experiment that holds every study of one data set and one backbone.

    The UI shows an experiment's name only from its last slash on, so a name has none.
    """
    return f"reprogramming {data} {backbone}".replace("/", "-")


def f1(label: str) -> str:
    """Name a label's final F1."""
    return f"f1/{label}"


def val_f1(label: str) -> str:
    """Name a label's F1 on validation, by epoch."""
    return f"val_f1/{label}"


def test(name: str) -> str:
    """Name a figure on the test split."""
    return f"test/{name}"


def test_f1(label: str) -> str:
    """Name a label's F1 on the test split."""
    return f"test_f1/{label}"


def test_mean(configuration: str) -> str:
    """Name the mean over seeds of a configuration's macro-F1 on the test split."""
    return f"test_mean/{configuration}"


def test_std(configuration: str) -> str:
    """Name the standard deviation over seeds of a configuration's macro-F1 on the test split."""
    return f"test_std/{configuration}"


def params_of(part: str) -> str:
    """Name the trainable parameters of one part of the model."""
    return f"{PARAMS}/{part}"


def log10_path(path: str) -> str:
    """Name the decimal logarithm of a parameter: `optimiser/lr` becomes `optimiser/log10_lr`."""
    head, slash, last = path.rpartition("/")
    return f"{head}{slash}log10_{last}"


def is_term(param: str) -> bool:
    """Tell whether a parameter is a term of a study, which none of its trials draws."""
    return "/" not in param


def is_learning_rate(path: str) -> bool:
    """Tell whether a parameter is a learning rate, which is read on a logarithmic axis."""
    return path.rpartition("/")[2] in ("lr", "learning_rate")


def colour_of(system: str) -> str:
    """Give a system its colour; an unknown one always gets the same of four."""
    fallback = hashlib.sha256(system.encode()).digest()[0] % len(_OTHER_COLOURS)
    return _COLOURS.get(system, _OTHER_COLOURS[fallback])
