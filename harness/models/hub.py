"""The published AudioSet checkpoints of AST, by name: fetched from the Hugging Face hub once, then read from its cache.

`HF_HOME`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` are the hub's own and are heeded by it.

Source: https://huggingface.co/MIT, converted there from the original release. The revision and the checksum of
`ast-base384` are those that several public projects pin.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from harness.models.errors import first_line

WEIGHTS, CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class Checkpoint:
    """One published checkpoint; `sha256` is that of its weights, None where we know none to hold it to."""

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
    "ast-base384-0.448": Checkpoint("MIT/ast-finetuned-audioset-10-10-0.448"),
    "ast-base384-0.448-v2": Checkpoint("MIT/ast-finetuned-audioset-10-10-0.448-v2"),
    "ast-base384-stride12": Checkpoint("MIT/ast-finetuned-audioset-12-12-0.447"),
    "ast-base384-stride14": Checkpoint("MIT/ast-finetuned-audioset-14-14-0.443"),
    "ast-base384-stride16": Checkpoint("MIT/ast-finetuned-audioset-16-16-0.442"),
}


def fetch(name: str, checkpoint: Checkpoint) -> Path:
    """Return a directory with the checkpoint's weights and config, from the hub's cache or the hub.

    Raises:
        ValueError: the weights are not those that were published.
        FileNotFoundError: they are not in the cache, and the hub cannot be reached or does not have them.
    """
    try:
        config, weights = (
            Path(hf_hub_download(checkpoint.repo, file, revision=checkpoint.revision)) for file in (CONFIG, WEIGHTS)
        )
    except (LocalEntryNotFoundError, HfHubHTTPError) as error:
        pinned = "" if checkpoint.revision == "main" else f" --revision {checkpoint.revision}"
        raise FileNotFoundError(
            f"backbone={name}: {checkpoint.repo} is not in the Hugging Face cache, and could not be fetched "
            f"({first_line(error)}). Where there is a network, `hf download {checkpoint.repo}{pinned} {CONFIG} "
            f"{WEIGHTS} --local-dir DIR` brings it; then give --backbone DIR"
        ) from error
    _check(name, checkpoint, weights)
    return config.parent


def _check(name: str, checkpoint: Checkpoint, weights: Path) -> None:
    if checkpoint.sha256 is None:
        return
    with weights.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != checkpoint.sha256:
        raise ValueError(
            f"backbone={name}: {weights} has SHA-256 {found}, the published weights have {checkpoint.sha256}; remove "
            "the file and try again"
        )
