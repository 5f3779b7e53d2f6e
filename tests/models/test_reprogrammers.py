"""Contract tests over every reprogrammer, mapper and normalisation, and the paper's parameter counts."""

import contextlib
from dataclasses import asdict
from itertools import product

import numpy as np
import pytest
import torch

from harness.common.registry import resolve
from harness.config.components import (
    ACTIVATIONS,
    NORMS,
    CnnReprogrammer,
    ManyToOneMapper,
    NoiseReprogrammer,
    UNetReprogrammer,
)
from harness.config.recipe import NORMALISATIONS
from harness.config.trial import MAPPERS, REPROGRAMMERS, TrialConfig
from harness.models.build import Target, build_model
from harness.models.reprogrammers import build_reprogrammer
from harness.training.losses import masked_bce
from tests.conftest import LABELS, TINY


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("kind", REPROGRAMMERS)
class TestEveryReprogrammer:
    def test_keeps_shape_and_type(self, kind):
        module = build_reprogrammer(REPROGRAMMERS[kind].config(), n_frames=32, n_mels=32)
        rewritten = module(torch.randn(3, 32, 32))
        assert rewritten.shape == (3, 32, 32)
        assert rewritten.dtype == torch.float32

    def test_passes_a_gradient_to_its_input_and_to_each_of_its_parameters(self, kind):
        torch.manual_seed(0)
        module = build_reprogrammer(REPROGRAMMERS[kind].config(), n_frames=32, n_mels=32)
        spectrogram = torch.randn(3, 32, 32, requires_grad=True)
        (module(spectrogram) * torch.randn(3, 32, 32)).sum().backward()
        assert spectrogram.grad.abs().sum() > 0
        silent = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert silent == []


@pytest.mark.parametrize(
    "config",
    [
        NoiseReprogrammer(init_scale=0.0),
        NoiseReprogrammer(shape="mel"),
        NoiseReprogrammer(shape="frame"),
        CnnReprogrammer(is_residual=True, init_scale=0.0),
        CnnReprogrammer(is_residual=True, init_scale=0.0, norm="batch", depth=3, width=4),
        UNetReprogrammer(is_residual=True, init_scale=0.0, output_activation="none"),
        UNetReprogrammer(is_residual=True, init_scale=0.0, norm="none", output_activation="tanh"),
        UNetReprogrammer(
            is_residual=True, init_scale=0.0, norm="instance", output_activation="none", has_input_skip=False
        ),
    ],
)
def test_a_residual_reprogrammer_at_scale_zero_starts_as_the_identity(config):
    module = build_reprogrammer(config, n_frames=32, n_mels=32)
    spectrogram = torch.randn(3, 32, 32)
    assert torch.equal(module(spectrogram), spectrogram)


def at_scale_zero():
    """Every residual configuration at scale zero that is accepted, over the axes that shape its gradient."""
    shapes = [(CnnReprogrammer, {"depth": depth, "width": 3}) for depth in (1, 2, 3)]
    shapes += [
        (UNetReprogrammer, {"depth": depth, "has_input_skip": skip}) for depth in (2, 3) for skip in (True, False)
    ]
    for (cls, shape), norm, activation in product(shapes, NORMS, ACTIVATIONS):
        hidden = [{"hidden_activation": kind} for kind in ACTIVATIONS] if cls is CnnReprogrammer else [{}]
        for extra in hidden:
            with contextlib.suppress(ValueError):
                yield cls(is_residual=True, init_scale=0.0, norm=norm, output_activation=activation, **shape, **extra)


@pytest.mark.parametrize("config", list(at_scale_zero()), ids=repr)
def test_every_parameter_of_a_residual_reprogrammer_at_scale_zero_moves_within_a_few_steps(config):
    torch.manual_seed(0)
    module = build_reprogrammer(config, n_frames=16, n_mels=16)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
    spectrogram, target = torch.randn(3, 16, 16), torch.randn(3, 16, 16)
    for _ in range(4):
        optimiser.zero_grad()
        (module(spectrogram) - target).square().mean().backward()
        optimiser.step()
    assert [name for name, p in module.named_parameters() if torch.equal(p, before[name])] == []


@pytest.mark.parametrize(("shape", "values"), [("full", 32 * 64), ("mel", 64), ("frame", 32)])
def test_a_noise_pattern_has_as_many_values_as_its_shape_says(shape, values):
    assert count(build_reprogrammer(NoiseReprogrammer(shape=shape), n_frames=32, n_mels=64)) == values


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
@pytest.mark.parametrize("norm", ["none", "batch", "instance"])
def test_a_unet_of_any_depth_and_norm_works(depth, norm):
    config = UNetReprogrammer(depth=depth, norm=norm, width=3, kernel=5)
    module = build_reprogrammer(config, n_frames=64, n_mels=32)
    assert module(torch.randn(2, 64, 32)).shape == (2, 64, 32)


def test_a_unet_too_deep_for_its_input_is_refused():
    with pytest.raises(ValueError, match=r"reprogrammer/depth=6: each level halves the 32 mel bins"):
        build_reprogrammer(UNetReprogrammer(depth=6), n_frames=64, n_mels=32)


def convolve(maps, kernel):
    """Return the 3 x 3 convolution of (clip, channel, row, column), zeros around it, in plain NumPy."""
    padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows, columns = maps.shape[2:]
    return sum(
        np.einsum("ncij,oc->noij", padded[:, :, i : i + rows, j : j + columns], kernel[:, :, i, j])
        for i in range(3)
        for j in range(3)
    )


def doubling(size, *, align_corners):
    """Return the (2 size, size) matrix of a linear doubling: each output's weights on its two nearest inputs."""
    outputs = np.arange(2 * size)
    at = outputs * (size - 1) / (2 * size - 1) if align_corners else np.clip((outputs + 0.5) / 2 - 0.5, 0, size - 1)
    lower = np.minimum(at.astype(int), size - 2)
    matrix = np.zeros((2 * size, size))
    matrix[outputs, lower], matrix[outputs, lower + 1] = 1 - (at - lower), at - lower
    return matrix


def plain_unet(state, spectrogram, *, align_corners):
    """Return the paper's U-Net, from REFERENCE's description of the released code, with statistics of the batch."""

    def block(name, maps):
        maps = convolve(maps, state[f"{name}.0.weight"])
        mean, variance = maps.mean((0, 2, 3), keepdims=True), maps.var((0, 2, 3), keepdims=True)
        scale, shift = (state[f"{name}.1.{kind}"][:, None, None] for kind in ("weight", "bias"))
        return np.maximum((maps - mean) / np.sqrt(variance + 1e-5) * scale + shift, 0)

    def halve(maps):
        clips, channels, rows, columns = maps.shape
        return maps.reshape(clips, channels, rows // 2, 2, columns // 2, 2).max((3, 5))

    def up(maps):
        rows, columns = (doubling(size, align_corners=align_corners) for size in maps.shape[2:])
        return rows @ maps @ columns.T

    image = spectrogram[:, None]
    x1 = halve(block("down.0", image))
    x2 = halve(block("down.1", x1))
    x3 = halve(block("down.2", x2))
    x4 = block("up.0", up(x3) + x2)
    x5 = block("up.1", up(x4) + x1)
    return block("last", up(x5) + image)[:, 0]


@pytest.mark.parametrize("align_corners", [True, False])
def test_the_papers_unet_equals_a_plain_one_in_numpy(align_corners):
    torch.manual_seed(0)
    changes = {} if align_corners else {"align_corners": False}
    module = build_reprogrammer(UNetReprogrammer(**changes), n_frames=64, n_mels=32).double()
    for parameter in module.parameters():
        torch.nn.init.uniform_(parameter, -0.5 if parameter.ndim > 1 else 0.5, 1.0)
    spectrogram = 4 * np.random.default_rng(0).normal(size=(3, 64, 32)) - 6
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    found = module(torch.from_numpy(spectrogram)).detach().numpy()
    expected, other = (plain_unet(state, spectrogram, align_corners=way) for way in (align_corners, not align_corners))
    assert np.abs(found - expected).max() < 1e-10
    assert np.sqrt(((found - other) ** 2).mean() / (found**2).mean()) > 0.02


def test_the_gradient_of_a_unets_batch_norm_in_float32_is_that_in_float64():
    gradients = []
    for dtype in (torch.float32, torch.float64):
        norm = build_reprogrammer(UNetReprogrammer(), n_frames=1024, n_mels=128).down[0][1].to(dtype)
        torch.manual_seed(0)
        maps, weight = torch.randn(2, 8, 4, 1024, 128, dtype=torch.float64)
        maps = (4 * maps - 60).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
        (norm(maps) * (weight + 1).to(dtype)).mean().backward()
        gradients.append([tensor.grad.double() for tensor in (maps, *norm.parameters())])
    inputs, *parameters = (float((one - exact).norm() / exact.norm()) for one, exact in zip(*gradients, strict=True))
    assert inputs < 1e-5
    assert max(parameters) < 2e-3


MAPPER_CONFIGS = [mapper.config() for mapper in MAPPERS.values()] + [
    ManyToOneMapper(assignment=kind, sources_per_label=2, is_calibrated=True)
    for kind in ("contiguous", "random", "frequent")
]


def mapper_of(config, *, labels=LABELS, affinity=None):
    return MAPPERS[config.kind].builder(
        **asdict(config),
        embed_dim=TINY.embed_dim,
        n_labels=len(labels),
        n_sources=TINY.n_source_labels,
        labels=labels,
        source_labels=tuple(map(str, range(TINY.n_source_labels))),
        seed=0,
        label_affinity=lambda: affinity,
    )


@pytest.mark.parametrize("config", MAPPER_CONFIGS, ids=repr)
def test_every_mapper_gives_one_logit_a_label_and_passes_a_gradient(config, tiny_backbone):
    affinity = np.random.default_rng(0).random((len(LABELS), TINY.n_source_labels))
    embedding = torch.randn(3, TINY.embed_dim, requires_grad=True)
    logits = mapper_of(config, affinity=affinity)(embedding, tiny_backbone)
    assert logits.shape == (3, len(LABELS))
    logits.sum().backward()
    assert embedding.grad.abs().sum() > 0


def test_many_to_one_is_the_mean_over_the_assigned_logits(tiny_backbone):
    mapper = mapper_of(ManyToOneMapper(assignment="contiguous", sources_per_label=3), labels=LABELS[:2])
    embedding = torch.randn(5, TINY.embed_dim)
    source = tiny_backbone.logits(embedding)
    expected = torch.stack([source[:, :3].mean(dim=1), source[:, 3:6].mean(dim=1)], dim=1)
    assert torch.allclose(mapper(embedding, tiny_backbone), expected)
    assert count(mapper) == 0
    other = mapper_of(ManyToOneMapper(assignment="random", sources_per_label=5), labels=LABELS[:2])
    other.load_state_dict(mapper.state_dict())
    assert torch.allclose(other(embedding, tiny_backbone), expected)


@pytest.mark.parametrize("kind", NORMALISATIONS)
def test_every_normalisation_keeps_the_shape(kind):
    module = resolve(NORMALISATIONS[kind])(-5.0, 3.0)
    assert module(torch.randn(2, 8, 8)).shape == (2, 8, 8)
    assert count(module) == (2 if kind == "learned" else 0)


def test_the_audioset_normalisation_is_asts():
    log_mel = torch.tensor([[[-4.2677393, 0.0]]])
    expected = (log_mel + 4.2677393) / (2 * 4.5689974)
    assert torch.allclose(resolve(NORMALISATIONS["audioset"])(0.0, 1.0)(log_mel), expected, atol=1e-6)


def test_the_data_sets_normalisation_uses_the_data_sets_figures():
    normalised = resolve(NORMALISATIONS["dataset"])(-5.0, 3.0)(torch.tensor([[[-5.0, 1.0]]]))
    assert torch.allclose(normalised, torch.tensor([[[0.0, 1.0]]]), atol=1e-6)


def test_a_data_set_without_variance_is_refused():
    with pytest.raises(ValueError, match=r"std=0\.0: must be above 0"):
        resolve(NORMALISATIONS["dataset"])(-5.0, 0.0)


@pytest.mark.parametrize("mapper", MAPPERS)
@pytest.mark.parametrize("reprogrammer", REPROGRAMMERS)
def test_exactly_the_reprogrammer_and_the_mapper_learn(reprogrammer, mapper, tiny_backbone, tiny_data):
    paths = {"reprogrammer/kind": reprogrammer, "mapper/kind": mapper, "normalisation/kind": "learned"}
    if mapper == "many_to_one":
        paths |= {"mapper/is_calibrated": True}
    model = build_model(
        TrialConfig.from_paths(paths), tiny_backbone, Target.of(tiny_data), seed=0, device=torch.device("cpu")
    )
    frozen = {key: tensor.clone() for key, tensor in tiny_backbone.state_dict().items()}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(2):  # a zero at the start passes gradient below itself only from the second step on
        log_mel, targets, observed = tiny_data.train.batch(np.arange(8) + 8 * step, torch.device("cpu"))
        masked_bce(model(log_mel, tiny_backbone), targets, observed).backward()
        optimiser.step()
        optimiser.zero_grad()
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []
    assert not any(name.startswith("backbone") for name in before)
    assert all(torch.equal(frozen[key], tensor) for key, tensor in tiny_backbone.state_dict().items())
    assert all(p.grad is None for p in tiny_backbone.parameters())
