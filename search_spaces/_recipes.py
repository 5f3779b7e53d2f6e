"""The training recipes of the paper and of its released code, which differ: what `--preset` fixes.

A preset holds every path of the recipe, so that a study of any space of log-mel systems searches only what is left:
reprogrammer and mapper.

Source: `paper`: Chen and Lerch, MMM 2023, section 4.2; what it does not state (normalisation, decoding) is as plain as
can be. `released`: the code at github.com/hchen605/ast_inst_cls.
Differs: the released code masks with 0 and not with silence, turns a silent clip into NaN, never trains the U-Net, and
looks at the test split after every epoch; none of that is a recipe.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """Values by path, and the number of epochs that they are meant for."""

    epochs: int
    paths: Mapping[str, Any]


PRESETS: dict[str, Recipe] = {
    "paper": Recipe(
        50,
        {
            "optimiser/lr": 5e-5,
            "optimiser/beta1": 0.9,
            "optimiser/beta2": 0.999,
            "optimiser/weight_decay": 0.0,
            "schedule/kind": "paper",
            "schedule/warmup": 0.0,
            "training/targets": "hard",
            "training/batch_size": 8,
            "augmentation/kind": "none",
            "normalisation/kind": "none",
            "front_end/via_hz": 0,
            "front_end/is_peak_normalised": False,
            "front_end/clip_seconds": 0.0,
        },
    ),
    "released": Recipe(
        30,
        {
            "optimiser/lr": 1e-5,
            "optimiser/beta1": 0.95,
            "optimiser/beta2": 0.999,
            "optimiser/weight_decay": 5e-7,
            "schedule/kind": "released",
            "schedule/warmup": 0.0,
            "training/targets": "soft",
            "training/batch_size": 4,
            "augmentation/kind": "specaugment",
            "augmentation/max_mels": 24,
            "augmentation/max_seconds": 0.96,
            "normalisation/kind": "none",
            "front_end/via_hz": 22050,
            "front_end/is_peak_normalised": True,
            "front_end/clip_seconds": 10.0,
        },
    ),
}
