"""AST weights on disk: our own files, Hugging Face's and the original release's, read into the same `Ast`.

A file of ours holds the tensors under the names of `Ast.state_dict()`; its metadata hold the geometry and where the
weights come from. Hugging Face's hold `audio_spectrogram_transformer.*` and `classifier.*`, with a `config.json`
beside them.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from harness.models.ast import GEOMETRIES, Ast, AstGeometry
from harness.models.hub import CHECKPOINTS, fetch
from harness.models.original_release import read_release

BUILT_IN = ("ast-nano",)
RANDOM_SUFFIX = "-random"

_HUGGING_FACE = {
    "embeddings.cls_token": "class_token",
    "embeddings.distillation_token": "distillation_token",
    "embeddings.position_embeddings": "position",
    "embeddings.patch_embeddings.projection": "patch",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "layernorm": "norm",
}
_HUGGING_FACE_GEOMETRY = {
    "embed_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "frequency_stride": "frequency_stride",
    "time_stride": "time_stride",
    "n_mels": "num_mel_bins",
    "n_frames": "max_length",
    "layer_norm_eps": "layer_norm_eps",
    "head_eps": "layer_norm_eps",
}


def load_backbone(name: str) -> Ast:
    """Return the named backbone, frozen.

    `name` is a built-in (`ast-nano`), a published checkpoint (`ast-base384`), which comes from the Hugging Face hub or
    its cache, a published geometry with random weights for benchmarks (`ast-base384-random`), a `.safetensors` or
    `.pth` file, or a directory that holds `model.safetensors`.

    Raises:
        ValueError: the name is none of these, or the file does not hold an AST of its geometry.
        FileNotFoundError: a path was given and nothing is there, or a published checkpoint cannot be fetched.
    """
    if name in BUILT_IN:
        with resources.as_file(resources.files("harness.models") / "weights" / f"{name}.safetensors") as path:
            return load_ast(path).freeze()
    geometry = GEOMETRIES.get(name.removesuffix(RANDOM_SUFFIX))
    if geometry is not None and name.endswith(RANDOM_SUFFIX):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Ast(geometry).freeze()
    if (published := CHECKPOINTS.get(name)) is not None:
        return load_ast(fetch(name, published)).freeze()
    if "/" in name or name.endswith((".safetensors", ".pth")) or Path(name).exists():
        return load_ast(Path(name)).freeze()
    choices = [*BUILT_IN, *CHECKPOINTS, *(f"{known}{RANDOM_SUFFIX}" for known in GEOMETRIES if known not in BUILT_IN)]
    raise ValueError(
        f"backbone={name!r}: must be one of {', '.join(choices)}, or the path of a .safetensors or .pth file, or "
        "of a directory with model.safetensors and config.json"
    )


def load_ast(path: Path) -> Ast:
    """Return the AST held by a file of ours or of Hugging Face's, or by a `.pth` of the release, in float32.

    Each format has its own LayerNorm eps: 1e-12 everywhere in Hugging Face's config; in the original release 1e-6 in
    the blocks and 1e-5 in the head.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is damaged, or tensors are missing, unknown or of another shape than the geometry asks for.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.exists():
        raise FileNotFoundError(f"backbone {path}: {file} does not exist")
    if file.suffix == ".pth":
        geometry, tensors = read_release(file)
        return _built(file, geometry, tensors)
    tensors, metadata = _read(file)
    if any(key.startswith("audio_spectrogram_transformer.") for key in tensors):
        geometry = _hugging_face_geometry(file.with_name("config.json"))
        tensors = _from_hugging_face(file, tensors, geometry.depth)
    elif "geometry" in metadata:
        geometry = _own_geometry(file, metadata["geometry"])
    else:
        raise ValueError(f"{file}: neither Hugging Face's key names nor a `geometry` in its metadata: not an AST")
    return _built(file, geometry, tensors)


def _built(file: Path, geometry: AstGeometry, tensors: Mapping[str, Tensor]) -> Ast:
    model = Ast(geometry)
    _check_tensors(file, tensors, model.state_dict())
    model.load_state_dict({key: tensor.float() for key, tensor in tensors.items()})
    return model


def save_ast(path: Path, model: Ast, metadata: Mapping[str, str]) -> None:
    """Write the AST as float16 safetensors with its geometry and `metadata` in the header."""
    tensors = {key: tensor.detach().half().contiguous() for key, tensor in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={**metadata, "geometry": json.dumps(asdict(model.geometry))})


def metadata_of(path: Path) -> dict[str, str]:
    """Return the provenance that a file of ours carries."""
    return _read(path)[1]


def backbone_digest(model: Ast) -> str:
    """Return the SHA-256 of the geometry and of every weight, as hex."""
    digest = hashlib.sha256(json.dumps(asdict(model.geometry), sort_keys=True).encode())
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(file, framework="pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{file}: not a whole safetensors file ({error})") from error


def _own_geometry(file: Path, text: str) -> AstGeometry:
    try:
        return AstGeometry(**json.loads(text))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: the `geometry` in its metadata is none ({error})") from error


def _hugging_face_geometry(config_file: Path) -> AstGeometry:
    if not config_file.exists():
        raise FileNotFoundError(f"{config_file}: needed beside the weights, for the geometry")
    try:
        config = json.loads(config_file.read_text())
        labels = config.get("id2label")
        geometry = {field: config[key] for field, key in _HUGGING_FACE_GEOMETRY.items()}
    except KeyError as error:
        raise ValueError(f"{config_file}: lacks the key {error.args[0]}") from error
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{config_file}: not a JSON object ({error})") from error
    try:
        return AstGeometry(n_source_labels=len(labels) if labels else config.get("num_labels", 2), **geometry)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{config_file}: {error}") from error


def _from_hugging_face(file: Path, tensors: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    try:
        return _renamed(tensors, depth)
    except KeyError as error:
        raise ValueError(f"{file}: missing {error.args[0]}") from error


def _renamed(tensors: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Return Hugging Face's tensors under our names, with query, key and value fused."""
    renamed = {
        "head_norm.weight": tensors["classifier.layernorm.weight"],
        "head_norm.bias": tensors["classifier.layernorm.bias"],
        "head.weight": tensors["classifier.dense.weight"],
        "head.bias": tensors["classifier.dense.bias"],
    }
    for key, tensor in tensors.items():
        inner = key.removeprefix("audio_spectrogram_transformer.")
        if inner == key or ".attention.attention." in key:
            continue
        prefix, rest = "", inner
        if block := re.match(r"encoder\.layer\.(\d+)\.(.*)", inner):
            prefix, rest = f"blocks.{block[1]}.", block[2]
        stem = next((stem for stem in _HUGGING_FACE if rest == stem or rest.startswith(f"{stem}.")), None)
        renamed[prefix + (rest if stem is None else rest.replace(stem, _HUGGING_FACE[stem], 1))] = tensor
    for index in range(depth):
        parts = f"audio_spectrogram_transformer.encoder.layer.{index}.attention.attention."
        for kind in ("weight", "bias"):
            renamed[f"blocks.{index}.attn.qkv.{kind}"] = torch.cat(
                [tensors[f"{parts}{part}.{kind}"] for part in ("query", "key", "value")]
            )
    return renamed


def _check_tensors(file: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    problems = [f"missing {key}" for key in expected if key not in found]
    problems += [f"unknown {key}" for key in found if key not in expected]
    problems += [
        f"{key} is {tuple(found[key].shape)}, must be {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in found and found[key].shape != tensor.shape
    ]
    if problems:
        shown = "; ".join(problems[:5])
        raise ValueError(f"{file}: {len(problems)} tensors do not fit the geometry: {shown}")
