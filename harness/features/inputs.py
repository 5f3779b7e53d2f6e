"""The inputs that systems take: log-mel of a front end, or the data set's own VGGish features.

An input of another kind, such as embeddings of a frozen backbone, is one more class here, which joins `Input`, and one
more case in `harness.study.sources.features_of`.
"""

from dataclasses import dataclass
from typing import ClassVar

from harness.features.log_mel import FrontEnd


@dataclass(frozen=True)
class LogMel:
    """Log-mel spectrograms, extracted from the audio and cached."""

    name: ClassVar[str] = "log_mel"
    front_end: FrontEnd


@dataclass(frozen=True)
class Vggish:
    """VGGish features of the data set: 10 seconds of 128 values from 0 to 255."""

    name: ClassVar[str] = "vggish"


Input = LogMel | Vggish
"""Each has a `name` for records and digests, and is equal to another one of the same values."""
