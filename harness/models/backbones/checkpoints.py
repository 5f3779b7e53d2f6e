"""AST weights by name: our own files, Hugging Face's and the original release's, read into the same `Ast`.

Our files hold the tensors under the names of `Ast.state_dict()`; their metadata hold the geometry, the names of the
source labels (`tags`, one a line) and the provenance.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from harness.common.files import sha256_of
from harness.common.text import summarise
from harness.models.backbones.ast import GEOMETRIES, Ast, AstGeometry, refitted
from harness.models.backbones.formats import from_hugging_face, from_release, is_hugging_face, read_config, read_state
from harness.models.backbones.hub import CHECKPOINTS, CONFIG, PICKLED, WEIGHTS, fetch

BUILT_IN = ("ast-nano",)

RANDOM_SUFFIX = "-random"

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")

_CHANGES = re.compile(r"(.+)@(?=.)([0-9]+)?(?:,?frames=([0-9]+))?(?:,?stride=([0-9]+)(?:x([0-9]+))?)?")


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
    if geometry is None:
        model = load_ast(_find(base), changes)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = Ast(geometry)
    return refitted(model, **changes).freeze()


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
    is_pickle = _is_pickled(file)
    tensors, metadata = (read_state(file), {}) if is_pickle else _read(file)
    labels = tuple(metadata.get("tags", "").splitlines())
    if is_hugging_face(tensors):
        geometry, labels = read_config(file.with_name(CONFIG))
        tensors = from_hugging_face(tensors)
    elif is_pickle:
        geometry, tensors = from_release(file, tensors, asked or {})
    else:
        geometry = _own_geometry(file, metadata)
    with torch.device("meta"):  # without weights of its own: those of base384 take 345 MB
        model = Ast(geometry, labels)
    _check_fit(file, tensors, model.state_dict())
    model.load_state_dict({key: tensor.float() for key, tensor in tensors.items()}, assign=True)
    return model


def save_ast(path: Path, model: Ast, metadata: Mapping[str, str]) -> None:
    """Write the AST as float16 safetensors with its geometry and `metadata` in the header."""
    tensors = {key: tensor.detach().half().contiguous() for key, tensor in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"tags": "\n".join(model.source_labels), "geometry": json.dumps(asdict(model.geometry))}
    save_file(tensors, path, metadata={**metadata, **header})


def _is_pickled(file: Path) -> bool:
    """Return whether a file is PyTorch's, of today or before 1.6; otherwise it is one of safetensors.

    Raises:
        ValueError: it is neither.
    """
    with file.open("rb") as opened:
        head = opened.read(16)
    if head[4:9] == b"\0\0\0\0{":  # a length below 4 GB in eight bytes, and the header, which is JSON
        return False
    if head.startswith((b"PK\x03\x04", b"\x80")):  # a zip archive, or a pickle of protocol 2 or above
        return True
    raise ValueError(
        f"{file}: neither a safetensors file nor one of `torch.save`: it begins with {head!r}; download it again, or "
        "run `git lfs pull` if it is a Git LFS pointer"
    )


def _check_fit(file: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are missing, unknown, of another shape or type, or not finite.

    Raises:
        ValueError: the message counts all that do not fit, and names the first few.
    """
    problems = [f"missing {key}" for key in expected if key not in found]
    for key, tensor in found.items():
        if key not in expected:
            problems.append(f"unknown {key}")
            continue
        if tensor.shape != expected[key].shape:
            problems.append(f"{key} is {tuple(tensor.shape)}, must be {tuple(expected[key].shape)}")
        if not tensor.is_floating_point() or not tensor.float().isfinite().all():
            problems.append(f"{key} holds {str(tensor.dtype).removeprefix('torch.')} that are no finite floats")
    if problems:
        raise ValueError(f"{file}: {len(problems)} tensors do not fit the geometry: {summarise(problems)}")


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
    files = [path / WEIGHTS, path / PICKLED] if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            return file
    raise FileNotFoundError(f"backbone {path}: does not exist, or holds neither {WEIGHTS} nor {PICKLED}")


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(file, framework="pt") as opened:
            names: list[str] = opened.keys()
            # copies, since tensors of an open file are a memory map, which changes or crashes with the file
            return {name: opened.get_tensor(name).clone() for name in names}, opened.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{file}: not a whole safetensors file ({error})") from error


def _own_geometry(file: Path, metadata: Mapping[str, str]) -> AstGeometry:
    if "geometry" not in metadata:
        raise ValueError(
            f"{file}: not an AST: it has neither the names of an ASTForAudioClassification nor a `geometry` in its "
            "metadata; an ASTModel lacks the source head"
        )
    try:
        return AstGeometry(**json.loads(metadata["geometry"]))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: invalid `geometry` in its metadata ({error})") from error
