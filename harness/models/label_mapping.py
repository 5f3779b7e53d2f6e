"""Methods that assign source labels of the backbone to each label, for the many-to-one mapper.

A method takes a `MappingTask` and returns an array (label, source) of indices into the backbone's source labels. The
mapper takes the mean of their logits, so an index that is repeated weighs more.

Source: Yang, Tsai and Chen, "Voice2Series", ICML 2021, for many-to-one mapping.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from harness.common.registry import resolve
from harness.config.components import ASSIGNMENTS

Assignment = Int[np.ndarray, "label source"]
Affinity = Float[np.ndarray, "label source"]

_N_AUDIOSET = 527

AUDIOSET: Mapping[str, tuple[int, ...]] = {
    "accordion": (209,),
    "banjo": (147,),
    "bass": (142, 194),
    "cello": (193,),
    "clarinet": (198,),
    "cymbals": (171, 172),
    "drums": (162, 164),
    "flute": (196,),
    "guitar": (140,),
    "mallet_percussion": (179,),
    "mandolin": (149,),
    "organ": (155,),
    "piano": (153,),
    "saxophone": (197,),
    "synthesizer": (158,),
    "trombone": (188,),
    "trumpet": (187,),
    "ukulele": (151,),
    "violin": (191,),
    "voice": (27, 254),
}
"""AudioSet's indices of OpenMIC's instruments, for the 527 source labels of the published checkpoints."""


@dataclass(frozen=True)
class MappingTask:
    """The arguments of a method.

    A label gets at most `per_label` source labels. `affinity` runs the backbone over training clips, see
    `harness.models.build.label_affinity`.
    """

    labels: tuple[str, ...]
    source_labels: tuple[str, ...]
    per_label: int
    seed: int
    affinity: Callable[[], Affinity]


def method_of(name: str) -> Callable[[MappingTask], Assignment]:
    """Return the method that `mapper/assignment` names."""
    found = ASSIGNMENTS[name]
    method: Callable[[MappingTask], Assignment] = resolve(found) if isinstance(found, str) else found
    return method


def contiguous(task: MappingTask) -> Assignment:
    """Assign source labels in index order, none to two labels."""
    return _dealt(np.arange(len(task.source_labels)), task)


def random(task: MappingTask) -> Assignment:
    """Assign source labels drawn with the seed, none to two labels."""
    return _dealt(np.random.default_rng(task.seed).permutation(len(task.source_labels)), task)


def frequent(task: MappingTask) -> Assignment:
    """Assign the pairs of highest affinity first, no source label to two labels."""
    per_label, affinity = _share(task), task.affinity()
    chosen: list[list[int]] = [[] for _ in task.labels]
    taken: set[int] = set()
    for flat in np.argsort(-affinity, axis=None, kind="stable"):
        label, source = divmod(int(flat), affinity.shape[1])
        if source not in taken and len(chosen[label]) < per_label:
            chosen[label].append(source)
            taken.add(source)
    return np.array(chosen, dtype=np.int64)


def semantic(task: MappingTask) -> Assignment:
    """Assign source labels by name: equal names first, then those that contain all words of the label's.

    A backbone with AudioSet's 527 labels uses the table of OpenMIC's counterparts where it has the label.

    Raises:
        ValueError: a label has no namesake.
    """
    found = [_namesakes(label, task.source_labels)[: task.per_label] for label in task.labels]
    if bare := [label for label, sources in zip(task.labels, found, strict=True) if not sources]:
        raise ValueError(
            f"mapper/assignment=semantic: the backbone has no source label named like {', '.join(bare)}; choose "
            "frequent, contiguous or random"
        )
    width = math.lcm(*map(len, found))  # repeated indices give all rows one length and keep each mean
    return np.array([np.resize(sources, width) for sources in found], dtype=np.int64)


def _namesakes(label: str, source_labels: tuple[str, ...]) -> list[int]:
    if len(source_labels) == _N_AUDIOSET and label in AUDIOSET:
        return list(AUDIOSET[label])
    wanted = _words(label)
    names = [_words(name) for name in source_labels]
    equal = [index for index, words in enumerate(names) if words == wanted]
    return equal or [index for index, words in enumerate(names) if wanted and wanted <= words]


def _words(name: str) -> frozenset[str]:
    """Return a name's words in lower case, without a plural s."""
    return frozenset(word.removesuffix("s") for word in re.findall(r"[^\W_]+", name.lower()))


def _dealt(order: Int[np.ndarray, " source"], task: MappingTask) -> Assignment:
    per_label = _share(task)
    return order[: per_label * len(task.labels)].reshape(len(task.labels), per_label)


def _share(task: MappingTask) -> int:
    """Return the number of source labels of each label, if none serves two.

    Raises:
        ValueError: there are fewer source labels than labels.
    """
    n_sources, n_labels = len(task.source_labels), len(task.labels)
    if n_sources < n_labels:
        raise ValueError(
            f"mapper/kind=many_to_one: each of the {n_labels} labels needs a source label of its own, the backbone has "
            f"{n_sources}; choose linear or fc"
        )
    return min(task.per_label, n_sources // n_labels)
