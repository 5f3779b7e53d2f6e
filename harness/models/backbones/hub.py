"""The published AudioSet checkpoints of AST, by name: fetched from the Hugging Face hub once, then read from its cache.

The hub's own variables apply: `HF_HOME`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`.

Source: https://huggingface.co/MIT, converted there from the original release. Several public projects pin the revision
and the checksum of `ast-base384`; one (TimbrosaField) pins and verifies those of `ast-base384-0.448`. The revision of
`ast-base384-stride16` is the conversion to safetensors that its `main` merged
(https://huggingface.co/MIT/ast-finetuned-audioset-16-16-0.442/tree/refs%2Fpr%2F1). The others follow `main`; every
study records their commit and checksum.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

from harness.common.files import sha256_of
from harness.common.text import first_line

WEIGHTS, PICKLED, CONFIG = "model.safetensors", "pytorch_model.bin", "config.json"


@dataclass(frozen=True)
class Checkpoint:
    """One published checkpoint; `sha256` is the checksum of its weights, None where none is known."""

    repo: str
    revision: str = "main"
    sha256: str | None = None


CHECKPOINTS = {
    "ast-base384": Checkpoint(
        "MIT/ast-finetuned-audioset-10-10-0.4593",
        "f826b80d28226b62986cc218e5cec390b1096902",
        "ae0c1e2ad4e1381d851fa9bf298ba13ebc9c5a914cdee2dbe427a6583869924d",
    ),
    "ast-base384-0.450": Checkpoint("MIT/ast-finetuned-audioset-10-10-0.450"),
    "ast-base384-0.448": Checkpoint(
        "MIT/ast-finetuned-audioset-10-10-0.448",
        "76516f20c86ec66e559eb81b47c608d4580763dd",
        "79035191dbd2263b338beb72f52c963c2da578b327b6e980670ea372e732d452",
    ),
    "ast-base384-0.448-v2": Checkpoint("MIT/ast-finetuned-audioset-10-10-0.448-v2"),
    "ast-base384-stride12": Checkpoint("MIT/ast-finetuned-audioset-12-12-0.447"),
    "ast-base384-stride14": Checkpoint("MIT/ast-finetuned-audioset-14-14-0.443"),
    "ast-base384-stride16": Checkpoint(
        "MIT/ast-finetuned-audioset-16-16-0.442", "1c4af51717da5fb8f93ad9943ffb7ae61a5628c4"
    ),
}


def fetch(name: str, checkpoint: Checkpoint) -> Path:
    """Return a directory with the checkpoint's weights and config, from the hub's cache or the hub.

    The directory is named after their commit. Some weights, such as those of `ast-base384-stride12`, were never
    converted to safetensors and come as `pytorch_model.bin`. A known checksum is always that of the safetensors.

    Raises:
        ValueError: the weights are not the published ones.
        FileNotFoundError: they are not in the cache, and the hub cannot be reached or does not have them.
    """
    formats = (WEIGHTS, PICKLED) if checkpoint.sha256 is None else (WEIGHTS,)
    try:
        place = Path(hf_hub_download(checkpoint.repo, CONFIG, revision=checkpoint.revision)).parent
        weights = _first_of(formats, checkpoint.repo, commit=place.name)
    except (EntryNotFoundError, HfHubHTTPError) as error:
        pinned = "" if checkpoint.revision == "main" else f" --revision {checkpoint.revision}"
        raise FileNotFoundError(
            f"backbone={name}: {checkpoint.repo} is not in the Hugging Face cache and could not be fetched "
            f"({first_line(error)}). On a machine with a network, run `hf download {checkpoint.repo}{pinned} {CONFIG} "
            f"{' '.join(formats)} --local-dir DIR` and give --backbone DIR, or copy the cache of another machine and "
            "set HF_HOME to it and HF_HUB_OFFLINE=1"
        ) from error
    if checkpoint.sha256 is not None and (found := sha256_of(weights)) != checkpoint.sha256:
        raise ValueError(
            f"backbone={name}: {weights} has SHA-256 {found}, the published weights have {checkpoint.sha256}; remove "
            "the file and try again"
        )
    return place


def _first_of(names: tuple[str, ...], repo: str, *, commit: str) -> Path:
    for name in names[:-1]:
        with contextlib.suppress(EntryNotFoundError):
            return Path(hf_hub_download(repo, name, revision=commit))
    return Path(hf_hub_download(repo, names[-1], revision=commit))
