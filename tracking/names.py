"""The names of every metric, tag and parameter in MLflow.

Conventions: `split/name` for a figure of each epoch (`step` is the epoch, from 1), a bare name for a final figure of
a trial (`step` is 0, which makes the UI draw bars). A parameter `part/name` belongs to a trial's configuration, one
with a bare name is a setting of its study, such as `precision`. F1 and mAP are fractions, losses nats. The UI groups
its charts by the text before the last `/` and has no logarithmic axes, hence the `log10` twins.
"""

import hashlib
import posixpath
import re
from typing import Literal

# Final figures of a trial.
MACRO_F1 = "macro_f1"
METRICS = (MACRO_F1, "positive_f1", "map")
"""The metrics of a study that names none: those of every experiment before studies recorded their own."""
PARAMS = "params"
PARAMS_LOG10 = "params_log10"
EPOCHS = "epochs"
SECONDS = "seconds"

# Figures of an epoch.
VAL_MACRO_F1 = "val/macro_f1"
LR = "lr"

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

# Parameter paths that the views turn into columns and axes.
SYSTEM_KIND = "system/kind"
REPROGRAMMER = "reprogrammer/kind"
MAPPER = "mapper/kind"
SCHEDULE = "schedule/kind"

# Tags of an experiment, each a JSON list.
LABELS = "labels"
METRIC_NAMES = "metric_names"

# Okabe and Ito's palette, which colour-blind readers can distinguish; a system has one colour in all charts.
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

Labelled = Literal["f1", "val_f1", "test_f1", "test_mean", "test_std"]
"""Figures of each label: the final F1, by epoch, on the test split; and of each configuration, over seeds."""

_UNSAFE = re.compile(r"[^/\w.\- :]|_(?=x[0-9A-F]{4,6}_)")
_ESCAPE = re.compile(r"_x([0-9A-F]{4,6})_")


def safe(label: str) -> str:
    """Spell a label in characters that MLflow takes; a label of plain characters stays as it is.

    Any other character becomes `_xHHHH_` with its code point, as XML names are escaped: `R&B` gives `R_x0026_B`.
    """
    spelled = _UNSAFE.sub(_escape, label)
    if posixpath.normpath(f"x/{spelled}") != f"x/{spelled}":  # MLflow refuses a name that is no normal path
        return re.sub(r"[/.]", _escape, spelled)
    return spelled


def label_of(metric: str) -> str:
    """Return the label of a metric that `labelled` named."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), metric.partition("/")[2])


def _escape(match: re.Match[str]) -> str:
    return f"_x{ord(match[0]):04X}_"


def experiment_name(data: str, backbone: str) -> str:
    """Name the experiment that holds every study of one data set and one backbone.

    The UI shows an experiment's name only from its last slash on, so a name has none.
    """
    return f"reprogramming {data} {backbone}".replace("/", "-")


def labelled(figure: Labelled, label: str) -> str:
    """Name a label's F1, or a configuration's macro-F1 over seeds, such as `val_f1/banjo` for `banjo`."""
    return f"{figure}/{safe(label)}"


def test(name: str) -> str:
    """Name a figure on the test split."""
    return f"test/{name}"


def params_of(part: str) -> str:
    """Name the trainable parameters of one part of the model."""
    return f"{PARAMS}/{part}"


def log10_path(path: str) -> str:
    """Name the decimal logarithm of a parameter: `optimiser/lr` becomes `optimiser/log10_lr`."""
    head, slash, last = path.rpartition("/")
    return f"{head}{slash}log10_{last}"


def is_setting(param: str) -> bool:
    """Return whether a parameter is a setting of the study, which no trial draws."""
    return "/" not in param


def is_learning_rate(path: str) -> bool:
    """Return whether a parameter is a learning rate, which is read on a logarithmic axis."""
    return path.rpartition("/")[2] in ("lr", "learning_rate")


def colour_of(system: str) -> str:
    """Return the colour of a system; an unknown one always gets the same of four."""
    fallback = hashlib.sha256(system.encode()).digest()[0] % len(_OTHER_COLOURS)
    return _COLOURS.get(system, _OTHER_COLOURS[fallback])
