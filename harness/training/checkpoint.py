"""Checkpoints that describe themselves: weights, and a header with all else that a prediction needs.

A checkpoint is a safetensors file: loading one runs no code of its own, and needs no study beside it. The header is
JSON under one key of the file's metadata; another key has the SHA-256 of the tensors.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from harness.config.components import ManyToOneMapper
from harness.config.trial import TrialConfig
from harness.models.backbones import Backbone, backbone_digest, load_backbone
from harness.models.build import Target
from harness.training.learner import Predictor, make_predictor

VERSION = 2
"""The version of the format. A file of another one is refused."""

_KEY, _VERSION_KEY, _DIGEST_KEY = "checkpoint", "checkpoint_version", "checkpoint_tensors_sha256"


@dataclass(frozen=True)
class CheckpointHeader:
    """The content and the origin of a checkpoint.

    `config` is by path. `labels` are in the order of the outputs. `front_end` is None for VGGish features; `mean` and
    `std` are those of the training clips' features. `backbone` has the name, the digest and, where known, the file and
    the revision; it is empty for a system without one. `data` has the data set, the split and the digests. `figures`
    and `f1_by_label` are on validation at `epoch`.
    """

    config: Mapping[str, Any]
    labels: tuple[str, ...]
    input: str
    front_end: Mapping[str, Any] | None
    mean: float
    std: float
    backbone: Mapping[str, str]
    data: Mapping[str, Any]
    epoch: int
    figures: Mapping[str, float]
    f1_by_label: Mapping[str, float]
    seed: int
    commit: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint. `predict` returns the probabilities of the header's labels, in their order."""

    header: CheckpointHeader
    predict: Predictor


def save_checkpoint(header: CheckpointHeader, weights: Mapping[str, Tensor]) -> bytes:
    """Return the content of a checkpoint file."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    digest = tensors_digest(tensors)
    metadata = {_VERSION_KEY: str(VERSION), _DIGEST_KEY: digest, _KEY: json.dumps(asdict(header))}
    return bytes(save(tensors, metadata=metadata))


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the names and the values of tensors on the CPU, as hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)  # NumPy lacks bfloat16
    return digest.hexdigest()


def read_header(source: Path | bytes) -> CheckpointHeader:
    """Return the header of a checkpoint file or of its content.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint, or of another version.
    """
    return _read_header(*_opened(source))[0]


def _read_header(where: str, content: bytes) -> tuple[CheckpointHeader, str]:
    """Return the header, and the digest that the tensors have."""
    try:
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size])["__metadata__"]
        version, values = metadata[_VERSION_KEY], json.loads(metadata[_KEY])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where}: is no checkpoint of this program, or was cut short") from error
    if version != str(VERSION):
        raise ValueError(f"{where}: is a checkpoint of version {version}; this program reads version {VERSION}")
    known = {field.name for field in fields(CheckpointHeader)}
    if values.keys() != known:
        raise ValueError(f"{where}: its header lacks or adds {', '.join(sorted(values.keys() ^ known))}")
    return CheckpointHeader(**{**values, "labels": tuple(values["labels"])}), metadata.get(_DIGEST_KEY, "none")


def load_checkpoint(
    source: Path | bytes, *, backbone: Backbone | str | None = None, device: torch.device | None = None
) -> Checkpoint:
    """Load a checkpoint file, or its content, with the backbone that it names.

    `backbone` is another name for the same weights, such as a file's place on this machine, or those weights loaded.

    Raises:
        FileNotFoundError: there is no such file, or no such backbone.
        ValueError: it is no checkpoint, of another version, or damaged, or the backbone has other weights.
    """
    where, content = _opened(source)
    (header, expected), device = _read_header(where, content), device or torch.device("cpu")
    try:
        weights = load(content)
    except SafetensorError as error:
        raise ValueError(f"{where}: its weights are damaged ({error})") from error
    if (digest := tensors_digest(weights)) != expected:
        raise ValueError(
            f"{where}: its weights are damaged: their SHA-256 is {digest[:12]}, its header has {expected[:12]}"
        )
    config = TrialConfig.from_paths(header.config)
    if isinstance(config.mapper, ManyToOneMapper):  # the file holds the assignment; measuring it takes training clips
        config = replace(config, mapper=replace(config.mapper, assignment="contiguous"))
    found = _checked_backbone(header, backbone, device) if header.backbone else None
    target = Target(header.labels, header.mean, header.std)
    try:
        predict = make_predictor(config, weights, backbone=found, target=target, device=device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{where}: its weights are not those of its configuration ({error})") from error
    return Checkpoint(header, predict)


def _opened(source: Path | bytes) -> tuple[str, bytes]:
    """Return a source's name in messages, and its content."""
    if isinstance(source, Path) and source.is_dir():
        raise ValueError(f"{source}: is a directory; give the checkpoint file in it")
    return (str(source), source.read_bytes()) if isinstance(source, Path) else ("checkpoint", source)


def _checked_backbone(header: CheckpointHeader, given: Backbone | str | None, device: torch.device) -> Backbone:
    name = given if isinstance(given, str) else header.backbone["name"]
    backbone = load_backbone(name).to(device) if given is None or isinstance(given, str) else given
    found, expected = backbone_digest(backbone), header.backbone["digest"]
    if found != expected:
        raise ValueError(
            f"backbone={name!r}: has weights {found[:12]}, the checkpoint was trained with {expected[:12]} "
            f"({header.backbone['name']}); give the backbone with those weights"
        )
    return backbone
