"""What several test files share: a tiny AST of the real class, and data with known structure."""

import logging
import math
import signal

import numpy as np
import pytest
import torch

from harness.data.batches import Split, StudyData
from harness.features.inputs import LogMel, Vggish
from harness.models.backbones.ast import Ast, AstGeometry
from harness.models.backbones.checkpoints import save_ast

# a shell that starts pytest in the background makes it ignore Ctrl-C, and all commands of the drills with it
signal.signal(signal.SIGINT, signal.default_int_handler)


torch.set_num_threads(1)  # tiny models gain nothing by more, and threads that outnumber the cores wait for each other

LABELS = ("accordion", "banjo", "bass", "cello")
TINY = AstGeometry(
    embed_dim=32,
    depth=2,
    num_heads=2,
    frequency_stride=16,
    time_stride=16,
    n_mels=32,
    n_frames=32,
    n_source_labels=24,
)


def pytest_collection_modifyitems(config, items):
    """Deselect drills and full-size tests, unless `-m` asks for them by name."""
    hidden = {name for name in ("drill", "full_size") if name not in config.option.markexpr}
    deselected = [item for item in items if hidden & {mark.name for mark in item.iter_markers()}]
    items[:] = [item for item in items if item not in deselected]
    config.hook.pytest_deselected(items=deselected)
    for item in items:
        if item.get_closest_marker("drill"):  # they wait for progress, which a busy machine makes slowly
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(autouse=True)
def _loggers_as_they_were():
    """Take away the handlers that a command called within a test leaves: they hold that test's captured stderr."""
    loggers = [logging.getLogger(name) for name in ("harness", "tracking")]
    before = [logger.handlers[:] for logger in loggers]
    yield
    for logger, handlers in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers


@pytest.fixture(scope="session")
def tiny_backbone():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Ast(TINY).freeze()


@pytest.fixture
def tiny_file(tmp_path):
    torch.manual_seed(0)
    save_ast(tmp_path / "tiny.safetensors", Ast(TINY), {})
    return str(tmp_path / "tiny.safetensors")


@pytest.fixture
def tiny_data():
    """Return clips whose labels can be heard: each raises its own band of the spectrogram."""
    return make_data(seed=0)


@pytest.fixture
def tiny_vggish_data():
    """Return VGGish features whose labels can be told: each raises its own part of them."""
    return make_vggish_data(seed=0)


def is_positive(*values):
    return all(math.isfinite(value) and value > 0 for value in values)


def make_data(*, seed, n_train=96, n_validation=64):
    rng = np.random.default_rng(seed)
    positive = rng.random((n_train + n_validation, len(LABELS))) < 0.5
    features = _audible(rng.normal(-6, 1, (len(positive), TINY.n_frames, TINY.n_mels)), positive, by=4)
    return _annotated(rng, features.astype(np.float16), positive, n_train=n_train, inputs=LogMel(TINY.front_end))


def make_vggish_data(*, seed, n_train=96, n_validation=64):
    rng = np.random.default_rng(seed)
    positive = rng.random((n_train + n_validation, len(LABELS))) < 0.5
    features = _audible(rng.normal(100, 20, (len(positive), 10, 128)), positive, by=60)
    return _annotated(rng, features.clip(0, 255).astype(np.float32), positive, n_train=n_train, inputs=Vggish())


def _audible(features, positive, *, by):
    band = features.shape[-1] // len(LABELS)
    for label in range(len(LABELS)):
        features[:, :, label * band : (label + 1) * band] += by * positive[:, label, None, None]
    return features


def _annotated(rng, features, positive, *, n_train, inputs):
    observed = rng.random(positive.shape) < 0.6
    observed[:, 0] |= ~observed.any(axis=1)
    targets = np.where(observed, positive, 0.5).astype(np.float32)

    def part(rows):
        return Split(features, rows, targets[rows], observed[rows])

    train, validation = part(np.arange(n_train)), part(np.arange(n_train, len(features)))
    return StudyData(LABELS, train, validation, -4.0, 2.3, inputs)
