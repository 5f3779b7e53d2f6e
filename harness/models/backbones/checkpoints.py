"""AST weights on disk: our own files, Hugging Face's and the original release's, read into the same `Ast`.

A file of ours holds the tensors under the names of `Ast.state_dict()`; its metadata hold the geometry and where the
weights come from. Each format has its own LayerNorm eps: Hugging Face's that of its `config.json`, 1e-12 everywhere as
published; the original release's 1e-6 in the blocks and 1e-5 in the head; ours whichever the AST was made with.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from harness.models.backbones.ast import GEOMETRIES, Ast, AstGeometry
from harness.models.backbones.hub import CHECKPOINTS, CONFIG, PICKLED, WEIGHTS, fetch, fetch_config, sha256_of
from harness.models.backbones.huggingface import from_hugging_face, is_hugging_face, parse_object, read_config
from harness.models.backbones.positions import refitted
from harness.models.backbones.release import from_release, read_state
from harness.models.backbones.weight_files import SUFFIXES, check_fit, is_pickled

BUILT_IN = ("ast-nano",)

RANDOM_SUFFIX = "-random"


def load_backbone(name: str) -> Ast:
    """Return the named backbone, frozen.

    `name` is a built-in (`ast-nano`), a published checkpoint (`ast-base384`), which comes from the Hugging Face hub or
    its cache, a published geometry with random weights for benchmarks (`ast-base384-random`), a file of safetensors
    or of PyTorch's, whatever its suffix, or a directory that holds `model.safetensors` or `pytorch_model.bin`. With
    `@FRAMES` behind it (`ast-base384@512`), it takes spectrograms of that many frames, its position embeddings cut or
    interpolated.

    Raises:
        ValueError: the name is none of these, or the file does not hold an AST of its geometry.
        FileNotFoundError: a path was given and nothing is there, or a published checkpoint cannot be fetched.
    """
    base, n_frames = _split(name)
    geometry = _random_geometry(base)
    model = load_ast(_find(base)) if geometry is None else _random(geometry)
    return refitted(model, n_frames=n_frames).freeze()


def geometry_of(name: str) -> AstGeometry:
    """Return the geometry of a backbone as `load_backbone` names it, without its weights where that can be.

    Raises:
        ValueError: the name is none, or what tells of its geometry is damaged.
        FileNotFoundError: there is nothing of that name, or what tells of its geometry cannot be fetched.
    """
    base, n_frames = _split(name)
    geometry = _random_geometry(base)
    if geometry is None and base in CHECKPOINTS:
        geometry = read_config(fetch_config(base, CHECKPOINTS[base]))
    if geometry is None:
        geometry = _geometry_in(_weights_in(_find(base)))
    return replace(geometry, n_frames=geometry.n_frames if n_frames is None else n_frames)


def origin_of(name: str) -> dict[str, str]:
    """Return where a backbone's weights come from, for the record: its file's SHA-256, and the revision of a hub's.

    Empty for what comes with this package. Two files may hold the same weights, which `backbone_digest` then tells.
    """
    base, _ = _split(name)
    if base in BUILT_IN or _random_geometry(base) is not None:
        return {}
    file = _weights_in(_find(base))
    origin = {"backbone_file": file.name, "backbone_sha256": sha256_of(file)}
    if base in CHECKPOINTS:
        origin |= {"backbone_repo": CHECKPOINTS[base].repo, "backbone_revision": file.parent.name}
    return origin


def load_ast(path: Path) -> Ast:
    """Return the AST held by a file of ours, of Hugging Face's or of the original release's, in float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is damaged, or tensors are missing, unknown or of another shape than the geometry asks for.
    """
    file = _weights_in(path)
    from_pytorch = is_pickled(file)
    tensors, metadata = (read_state(file), {}) if from_pytorch else _read(file)
    is_theirs = is_hugging_face(file, tensors)
    if is_theirs:
        geometry = read_config(file.with_name(CONFIG))
    elif from_pytorch:
        geometry, tensors = from_release(file, tensors)
    else:
        geometry = _own_geometry(file, metadata)
    with torch.device("meta"):  # without weights of its own: those of base384 take 345 MB
        model = Ast(geometry)
    if is_theirs:
        tensors = from_hugging_face(file, tensors, model.state_dict())
    else:
        check_fit(file, tensors, model.state_dict())
    model.load_state_dict({key: tensor.float() for key, tensor in tensors.items()}, assign=True)
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


def _split(name: str) -> tuple[str, int | None]:
    """Return a backbone's name without `@FRAMES`, and the number of frames if it has one."""
    found = re.fullmatch(r"(.+)@([0-9]+)", name)
    return (name, None) if found is None or Path(name).exists() else (found[1], int(found[2]))


def _random_geometry(name: str) -> AstGeometry | None:
    """Return the published geometry that is asked for with random weights, if that is what the name says."""
    return GEOMETRIES.get(name.removesuffix(RANDOM_SUFFIX)) if name.endswith(RANDOM_SUFFIX) else None


def _random(geometry: AstGeometry) -> Ast:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Ast(geometry)


def _find(name: str) -> Path:
    """Return the file or the directory of a name; a published checkpoint is fetched."""
    if name in BUILT_IN:
        return Path(__file__).parent / "weights" / f"{name}.safetensors"
    if (published := CHECKPOINTS.get(name)) is not None:
        return fetch(name, published)
    if "/" in name or name.lower().endswith(SUFFIXES) or (name and Path(name).exists()):
        return Path(name)
    choices = [*BUILT_IN, *CHECKPOINTS, *(f"{known}{RANDOM_SUFFIX}" for known in GEOMETRIES if known not in BUILT_IN)]
    raise ValueError(
        f"backbone={name!r}: must be one of {', '.join(choices)}, or the path of a file of weights "
        f"({', '.join(SUFFIXES)}), or of a directory with {CONFIG} and {WEIGHTS} or {PICKLED}"
    )


def _weights_in(path: Path) -> Path:
    file = path
    if path.is_dir():
        there = [path / name for name in (WEIGHTS, PICKLED) if (path / name).exists()]
        if not there:
            raise FileNotFoundError(f"backbone {path}: holds neither {WEIGHTS} nor {PICKLED}")
        file = there[0]
    if not file.exists():
        raise FileNotFoundError(f"backbone {file}: does not exist")
    if not file.is_file():
        raise ValueError(f"backbone {file}: must be a file, and is a directory or the like")
    return file


def _geometry_in(file: Path) -> AstGeometry:
    """Return the geometry of a file's AST; of a `.pth` of the release, that takes all its tensors."""
    if not is_pickled(file):
        with _opened(file) as opened:
            keys, metadata = opened.keys(), opened.metadata() or {}
        return read_config(file.with_name(CONFIG)) if is_hugging_face(file, keys) else _own_geometry(file, metadata)
    state = read_state(file)
    return read_config(file.with_name(CONFIG)) if is_hugging_face(file, state) else from_release(file, state)[0]


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with _opened(file) as opened:
        keys, metadata = opened.keys(), opened.metadata() or {}
    return {key: _read_tensor(file, key) for key in keys}, metadata


def _read_tensor(file: Path, key: str) -> Tensor:
    """Return a tensor in memory of its own: those of an open file are a map of it, and change or crash with the file.

    The file is opened for each, since what has been read of a map is resident until it is closed.
    """
    with _opened(file) as opened:
        tensor: Tensor = opened.get_tensor(key).clone()
    return tensor


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{file}: not a whole safetensors file ({error})") from error


def _own_geometry(file: Path, metadata: Mapping[str, str]) -> AstGeometry:
    if "geometry" not in metadata:
        raise ValueError(f"{file}: neither Hugging Face's key names nor a `geometry` in its metadata: not an AST")
    try:
        values = parse_object(metadata["geometry"])
        if unknown := sorted(values.keys() - {field.name for field in fields(AstGeometry)}):
            raise ValueError(
                f"{unknown[0]}: no such number; there are {', '.join(f.name for f in fields(AstGeometry))}"
            )
        return AstGeometry(**values)
    except ValueError as error:
        raise ValueError(f"{file}: the `geometry` in its metadata is none ({error})") from error
