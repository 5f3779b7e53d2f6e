"""AST weights on disk: our own files, Hugging Face's and the original release's, read into the same `Ast`.

Our files hold the tensors under the names of `Ast.state_dict()`; their metadata hold the geometry, the names of the
source labels (`tags`, one a line) and the provenance. Each format has its own LayerNorm eps: Hugging Face's that of its
`config.json`, the original release's 1e-6 in the blocks and 1e-5 in the head, ours that of the geometry.
"""

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

BUILT_IN = ("ast-nano",)

RANDOM_SUFFIX = "-random"

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")

_CHANGES = re.compile(r"(.+)@(?=.)([0-9]+)?(?:,?frames=([0-9]+))?(?:,?stride=([0-9]+)(?:x([0-9]+))?)?")

_N_BYTES = 512

_N_NAMED = 5


def load_ast_backbone(name: str) -> Ast:
    """Return the named AST, frozen.

    `name` is a built-in (`ast-nano`), a published checkpoint from the Hugging Face hub or its cache (`ast-base384`), a
    published geometry with random weights (`ast-base384-random`), a file of safetensors or PyTorch, or a directory with
    `model.safetensors` or `pytorch_model.bin`. A suffix sets frames and strides (frequency x time): `@512`,
    `@frames=512`, `@stride=12x16`, `@frames=512,stride=10`. Positions that do not fit are cut or interpolated. For a
    `.pth` of the original release, which records no geometry, the suffix also names the file's own geometry.

    Raises:
        ValueError: the name is none of these, or the file does not hold an AST of its geometry.
        FileNotFoundError: a path does not exist, or a published checkpoint cannot be fetched.
    """
    base, changes = _split(name)
    geometry = _random_geometry(base)
    model = load_ast(_find(base), changes) if geometry is None else _random(geometry)
    return refitted(model, **changes).freeze()


def geometry_of(name: str) -> AstGeometry:
    """Return the geometry of an AST by its name, without its weights unless only they decide it.

    Raises:
        ValueError: there is no such name, or the file is damaged.
        FileNotFoundError: there is no such file, or it cannot be fetched.
    """
    base, changes = _split(name)
    geometry = _random_geometry(base)
    if geometry is None and base in CHECKPOINTS:
        geometry = read_config(fetch_config(base, CHECKPOINTS[base]))[0]
    if geometry is None:
        geometry = _geometry_in(_weights_in(_find(base)), changes)
    return replace(geometry, **changes)


def origin_of(name: str) -> dict[str, str]:
    """Return the file name and SHA-256 of an AST's weights, with repository and revision if they come from the hub.

    Empty for built-in and random weights. Two files may hold the same weights: `backbone_digest` is then equal.
    """
    base, _ = _split(name)
    if base in BUILT_IN or _random_geometry(base) is not None:
        return {}
    file = _weights_in(_find(base))
    origin = {"backbone_file": file.name, "backbone_sha256": sha256_of(file)}
    if base in CHECKPOINTS:
        origin |= {"backbone_repo": CHECKPOINTS[base].repo, "backbone_revision": file.parent.name}
    return origin


def load_ast(path: Path, asked: Mapping[str, int] | None = None) -> Ast:
    """Return the AST of a file of any of the three formats, in float32.

    `asked` are numbers of the geometry that the user gave: they decide between those that fit a file of the release.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is damaged, or tensors are missing, unknown or of another shape than the geometry's.
    """
    file = _weights_in(path)
    from_pytorch = is_pickled(file)
    tensors, metadata = (read_state(file), {}) if from_pytorch else _read(file)
    is_theirs, labels = is_hugging_face(file, tensors), tuple(metadata.get("tags", "").splitlines())
    if is_theirs:
        geometry, labels = read_config(file.with_name(CONFIG))
    elif from_pytorch:
        geometry, tensors = from_release(file, tensors, asked or {})
    else:
        geometry = _own_geometry(file, metadata)
    try:
        with torch.device("meta"):  # without weights of its own: those of base384 take 345 MB
            model = Ast(geometry, labels)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    expected = model.state_dict()
    if is_theirs:
        expected, fused = from_hugging_face(expected)
    check_fit(file, tensors, expected)
    if is_theirs:
        tensors = fused(tensors)
    model.load_state_dict({key: tensor.float() for key, tensor in tensors.items()}, assign=True)
    return model


def save_ast(path: Path, model: Ast, metadata: Mapping[str, str]) -> None:
    """Write the AST as float16 safetensors with its geometry and `metadata` in the header."""
    tensors = {key: tensor.detach().half().contiguous() for key, tensor in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"tags": "\n".join(model.source_labels), "geometry": json.dumps(asdict(model.geometry))}
    save_file(tensors, path, metadata={**metadata, **header})


def metadata_of(path: Path) -> dict[str, str]:
    """Return the provenance in the header of one of our files."""
    with _opened(path) as opened:
        return opened.metadata() or {}


def is_pickled(file: Path) -> bool:
    """Return whether a file is PyTorch's, of today or before 1.6; otherwise it is one of safetensors.

    Raises:
        ValueError: it is neither; the message names what it may be.
    """
    with file.open("rb") as opened:
        head = opened.read(_N_BYTES)
    if head[4:9] == b"\0\0\0\0{":  # a length below 4 GB in eight bytes, and the header, which is JSON
        return False
    if head.startswith((b"PK\x03\x04", b"\x80")):  # a zip archive, or a pickle of protocol 2 or above
        return True
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{file}: a Git LFS pointer; run `git lfs pull` in its clone")
    if b"<html" in head.lower() or not head:
        raise ValueError(f"{file}: {'a web page' if head else 'empty'}; download the file again")
    raise ValueError(f"{file}: neither a safetensors file nor one of `torch.save`: it begins with {head[:16]!r}")


def check_fit(file: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are missing, unknown, of another shape or type, or not finite.

    Raises:
        ValueError: the message counts all that do not fit, and names the first few.
    """
    problems = [f"missing {key}" for key in expected if key not in found]
    problems += [f"unknown {key}" for key in found if key not in expected]
    for key, tensor in expected.items():
        if key not in found:
            continue
        if found[key].shape != tensor.shape:
            problems.append(f"{key} is {tuple(found[key].shape)}, must be {tuple(tensor.shape)}")
        if not found[key].is_floating_point():
            problems.append(f"{key} holds {str(found[key].dtype).removeprefix('torch.')}, must hold floats")
        elif not found[key].float().isfinite().all():
            problems.append(f"{key} holds NaN or infinity")
    if problems:
        more = f"; and {len(problems) - _N_NAMED} more" if len(problems) > _N_NAMED else ""
        raise ValueError(
            f"{file}: {len(problems)} tensors do not fit the geometry: {'; '.join(problems[:_N_NAMED])}{more}"
        )


def _split(name: str) -> tuple[str, dict[str, int]]:
    """Return a name without its `@` suffix, and the numbers of the geometry that the suffix gives.

    Raises:
        ValueError: the suffix is malformed.
    """
    base, at, suffix = name.rpartition("@")
    if not at or Path(name).exists() or "/" in suffix:
        return name, {}
    found = _CHANGES.fullmatch(name)
    if found is None or (found[2] and found[3]):
        raise ValueError(
            f"backbone={name!r}: @{suffix} must be @FRAMES, @frames=F, @stride=FxT or @frames=F,stride=FxT"
        )
    _, bare, frames, rows, columns = found.groups()
    given = {"n_frames": bare or frames, "frequency_stride": rows, "time_stride": columns or rows}
    return base, {field: int(value) for field, value in given.items() if value is not None}


def _random_geometry(name: str) -> AstGeometry | None:
    """Return the published geometry of a name that asks for random weights."""
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
        raise ValueError(f"backbone {file}: must be a file")
    return file


def _geometry_in(file: Path, asked: Mapping[str, int]) -> AstGeometry:
    """Return the geometry of a file's AST; a `.pth` of the release is read whole for it."""
    keys: Any
    if is_pickled(file):
        keys, metadata = read_state(file), None
    else:
        with _opened(file) as opened:
            keys, metadata = opened.keys(), opened.metadata() or {}
    if is_hugging_face(file, keys):
        return read_config(file.with_name(CONFIG))[0]
    return from_release(file, keys, asked)[0] if metadata is None else _own_geometry(file, metadata)


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with _opened(file) as opened:
        keys, metadata = opened.keys(), opened.metadata() or {}
    return {key: _read_tensor(file, key) for key in keys}, metadata


def _read_tensor(file: Path, key: str) -> Tensor:
    """Return a copy of a tensor: those of an open file are a memory map, which changes or crashes with the file.

    The file is opened for each tensor, since the pages of a map stay resident until it is closed.
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
    known = [field.name for field in fields(AstGeometry)]
    try:
        values = parse_object(metadata["geometry"])
        if unknown := sorted(values.keys() - set(known)):
            raise ValueError(f"{unknown[0]}: unknown; the numbers are {', '.join(known)}")
        return AstGeometry(**values)
    except ValueError as error:
        raise ValueError(f"{file}: invalid `geometry` in its metadata ({error})") from error
