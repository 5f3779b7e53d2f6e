"""The published AudioSet checkpoints of AST, by name: fetched from the Hugging Face hub once, then read from its cache.

The hub's own variables apply: `HF_HOME`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`.

Source: https://huggingface.co/MIT, converted there from the original release. Several public projects pin the revision
and the checksum of `ast-base384`; one (TimbrosaField) pins and verifies those of `ast-base384-0.448`. The revision of
`ast-base384-stride16` is the conversion to safetensors that its `main` merged
(https://huggingface.co/MIT/ast-finetuned-audioset-16-16-0.442/tree/refs%2Fpr%2F1). The others follow `main`; every
study records their commit and checksum.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

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

    The directory is named after their commit. Weights that were never converted to safetensors, such as those of
    `ast-base384-stride12`, come as `pytorch_model.bin`.

    Raises:
        ValueError: the weights are not the published ones.
        FileNotFoundError: they are not in the cache, and the hub cannot be reached or does not have them.
    """
    place = fetch_config(name, checkpoint).parent
    try:
        weights = _fetch_weights(checkpoint, commit=place.name)
    except (EntryNotFoundError, HfHubHTTPError) as error:
        raise _not_fetched(name, checkpoint, error) from error
    if checkpoint.sha256 is not None and (found := sha256_of(weights)) != checkpoint.sha256:
        raise ValueError(
            f"backbone={name}: {weights} has SHA-256 {found}, the published weights have {checkpoint.sha256}; remove "
            "the file and try again"
        )
    return place


def fetch_config(name: str, checkpoint: Checkpoint) -> Path:
    """Return the checkpoint's `config.json`, from the hub's cache or the hub, without its weights.

    Raises:
        FileNotFoundError: it is not in the cache, and the hub cannot be reached or does not have it.
    """
    try:
        return Path(hf_hub_download(checkpoint.repo, CONFIG, revision=checkpoint.revision))
    except (EntryNotFoundError, HfHubHTTPError) as error:
        raise _not_fetched(name, checkpoint, error) from error


def sha256_of(file: Path) -> str:
    """Return a file's SHA-256 as hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _fetch_weights(checkpoint: Checkpoint, *, commit: str) -> Path:
    try:
        return Path(hf_hub_download(checkpoint.repo, WEIGHTS, revision=commit))
    except EntryNotFoundError as error:
        if checkpoint.sha256 is not None:
            raise
        try:
            return Path(hf_hub_download(checkpoint.repo, PICKLED, revision=commit))
        except (EntryNotFoundError, HfHubHTTPError):
            raise error from None


def _not_fetched(name: str, checkpoint: Checkpoint, error: Exception) -> FileNotFoundError:
    pinned = "" if checkpoint.revision == "main" else f" --revision {checkpoint.revision}"
    # `hf download` skips names that the repository lacks; a known checksum is that of the safetensors
    weights = WEIGHTS if checkpoint.sha256 is not None else f"{WEIGHTS} {PICKLED}"
    return FileNotFoundError(
        f"backbone={name}: {checkpoint.repo} is not in the Hugging Face cache and could not be fetched "
        f"({first_line(error)}). On a machine with a network, run `hf download {checkpoint.repo}{pinned} {CONFIG} "
        f"{weights} --local-dir DIR` and give --backbone DIR, or copy the cache of another machine and set HF_HOME "
        f"to it and HF_HUB_OFFLINE=1"
    )
