"""Pre-train `ast-nano`, the built-in backbone: tag the General MIDI programs in rendered mixes.

    python -m harness.pretrain --soundfont /usr/share/sounds/sf2/FluidR3_GM.sf2 --output ast-nano.safetensors

The demo data set is another task in other sounds, 20 instruments rendered by TimGM6mb, so a study of the demo with this
backbone is model reprogramming in miniature. The mAP is the macro average precision over the tags that occur in the
held-out clips, measured with the float16 weights in the file.
"""

import logging
import math
import platform
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from jaxtyping import Bool, Float
from sklearn.metrics import average_precision_score
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from harness.common.files import cache_dir, sha256_of
from harness.common.progress import track
from harness.models.backbones.ast import GEOMETRIES, Ast
from harness.models.backbones.checkpoints import load_ast, save_ast
from harness.models.normalisations import AUDIOSET_MEAN, AUDIOSET_STD
from harness.synthetic.corpus import SHARD_CLIPS, Corpus, Split, prepare_corpus
from harness.synthetic.general_midi import TAGS

NAME = "ast-nano"
BATCH = 64
PEAK_LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.02
CHECKPOINTS = 12  # over the whole run
_NATS_PER_DB = math.log(10) / 10

logger = logging.getLogger(__name__)


def main(
    *,
    soundfont: Annotated[Path, typer.Option(help="The SoundFont (.sf2) that renders the corpus.")],
    output: Annotated[Path, typer.Option(help="The safetensors file to write.")],
    clips: Annotated[int, typer.Option(help=f"Training clips, a multiple of {SHARD_CLIPS}.")] = 6_144,
    held_out_clips: Annotated[int, typer.Option(help=f"Held-out clips, a multiple of {SHARD_CLIPS}.")] = 1_024,
    epochs: Annotated[int, typer.Option(min=1)] = 36,
    seed: Annotated[int, typer.Option(help="Decides the corpus, the first weights and the augmentation.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes that render, then threads that train.", min=1)] = 2,
    cache: Annotated[Path | None, typer.Option(help="Folder for rendered features. [the user's cache]")] = None,
) -> None:
    """Pre-train ast-nano and write it with its provenance."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(workers)
    splits: tuple[tuple[Split, int], ...] = (("held-out", held_out_clips), ("train", clips))
    held_out, train = (
        prepare_corpus(
            soundfont,
            GEOMETRIES[NAME].front_end,
            split=split,
            n_clips=n_clips,
            seed=seed,
            cache=cache or cache_dir(),
            workers=workers,
            progress=track,
        )
        for split, n_clips in splits
    )
    provenance = {
        "command": f"python -m harness.pretrain --soundfont {soundfont.name} --clips {clips} "
        f"--held-out-clips {held_out_clips} --epochs {epochs} --seed {seed} --output {output.name}",
        "task": "tagging of the 128 General MIDI programs and percussion in rendered mixes",
        "seed": str(seed),
        "epochs": str(epochs),
        "clips": f"{clips} train, {held_out_clips} held-out",
        "soundfont": soundfont.name,
        "soundfont_sha256": sha256_of(soundfont),
        "corpus_digest": f"{train.digest} train, {held_out.digest} held-out",
        "versions": _versions(),
    }
    torch.manual_seed(seed)
    model = Ast(GEOMETRIES[NAME], TAGS)
    for epoch in pretrain(model, train, epochs=epochs, seed=seed):
        if epoch % max(1, epochs // CHECKPOINTS) == 0 or epoch == epochs:
            score = write(output, model, held_out, {**provenance, "epochs_done": str(epoch)})
            logger.info("epoch %d of %d: held-out mAP %.4f; wrote %s", epoch, epochs, score, output)
    n_tags, megabytes = held_out.tags.any(axis=0).sum(), output.stat().st_size / 1e6
    print(f"{output}: held-out mAP {score:.4f} over {n_tags} tags, {megabytes:.2f} MB")


def pretrain(model: Ast, corpus: Corpus, *, epochs: int, seed: int) -> Iterator[int]:
    """Train the model in place; yield the number of epochs done, after each."""
    rng = torch.Generator().manual_seed(seed)
    _expect_each_tag_as_often_as_it_occurs(model, corpus)
    steps = math.ceil(len(corpus.tags) / BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LEARNING_RATE, total_steps=epochs * steps, pct_start=0.15
    )
    batches = (
        batch for _ in range(epochs) for batch in torch.split(torch.randperm(len(corpus.tags), generator=rng), BATCH)
    )
    for step, rows in enumerate(track(batches, total=epochs * steps, label="pre-training steps"), 1):
        spectrograms, tags = augment(*corpus.rows(rows.numpy()), rng)
        loss = binary_cross_entropy_with_logits(model.train().source_logits(spectrograms), tags)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % steps == 0:
            logger.info("epoch %d of %d: loss of its last batch %.4f", step // steps, epochs, loss.item())
            yield step // steps


def augment(
    log_mels: Float[Tensor, "clip frame mel"], tags: Float[Tensor, "clip tag"], rng: torch.Generator
) -> tuple[Float[Tensor, "clip frame mel"], Float[Tensor, "clip tag"]]:
    """Return normalised spectrograms, varied as a recording varies, and their tags.

    Time is rolled; about half of the clips are mixed with another at 0 to -12 dB (energies add, tags unite);
    the gain moves by 12 dB and the spectrum tilts by 6 dB either way; one band and one stretch are masked.
    Frames of padding (all zero) stay as they are.
    """
    n_clips, _, n_mels = log_mels.shape
    n_frames = int((log_mels[0] != 0).any(dim=1).sum())
    sound = log_mels[:, :n_frames].roll(int(torch.randint(n_frames, (), generator=rng)), dims=1)
    mixed, softer, gain, tilt, _ = torch.rand(5, n_clips, 1, 1, generator=rng)
    is_mixed = mixed < 0.5
    sound = torch.where(is_mixed, mix(sound, 12 * _NATS_PER_DB * softer), sound)
    tags = torch.where(is_mixed[:, :, 0], torch.maximum(tags, tags.roll(1, dims=0)), tags)
    slope = torch.linspace(-1, 1, n_mels) * (2 * tilt - 1)
    sound = normalise(sound + _NATS_PER_DB * (24 * gain - 12 + 6 * slope))
    for axis, widest in ((1, 24), (2, 12)):
        sound = sound.masked_fill(_mask(sound.shape, axis, widest, rng), 0.0)
    return torch.cat([sound, normalise(log_mels[:, n_frames:])], dim=1), tags


def mix(
    log_mels: Float[Tensor, "clip frame mel"], softer: Float[Tensor, "clip 1 1"]
) -> Float[Tensor, "clip frame mel"]:
    """Mix each clip with the clip before it, `softer` nats softer: energies add."""
    return torch.logaddexp(log_mels, log_mels.roll(1, dims=0) - softer)


def normalise(log_mel: Float[Tensor, "clip frame mel"]) -> Float[Tensor, "clip frame mel"]:
    """Return log-mel in AudioSet's normalisation, the input of every AST in this project."""
    return (log_mel - AUDIOSET_MEAN) / (2 * AUDIOSET_STD)


def held_out_map(model: Ast, corpus: Corpus) -> float:
    """Return the macro average precision over the tags that occur in the corpus."""
    model.eval()
    with torch.inference_mode():
        scores = [
            model.source_logits(normalise(corpus.rows(rows)[0]))
            for rows in np.array_split(np.arange(len(corpus.tags)), math.ceil(len(corpus.tags) / 256))
        ]
    occurs = corpus.tags.any(axis=0)
    return float(average_precision_score(corpus.tags[:, occurs], torch.cat(scores).numpy()[:, occurs], average="macro"))


def write(output: Path, model: Ast, held_out: Corpus, metadata: dict[str, str]) -> float:
    """Write the model in float16 with the held-out mAP of these weights, and return that mAP."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        unfinished = Path(folder) / output.name
        save_ast(unfinished, model, metadata)
        score = held_out_map(load_ast(unfinished), held_out)
        save_ast(unfinished, model, {**metadata, "held_out_map": f"{score:.4f}"})
        unfinished.replace(output)
    return score


def _expect_each_tag_as_often_as_it_occurs(model: Ast, corpus: Corpus) -> None:
    """Set the head's bias to the tags' log-odds, which an optimiser takes a thousand steps to find."""
    share = torch.from_numpy(corpus.tags.mean(axis=0)).float().clamp(1e-3, 1 - 1e-3)
    with torch.no_grad():
        model.head.bias.copy_(torch.logit(share))


def _mask(shape: torch.Size, axis: int, widest: int, rng: torch.Generator) -> Bool[Tensor, "clip frame mel"]:
    """Return a mask, true over one random stretch of an axis in each clip."""
    width = torch.randint(widest + 1, (shape[0], 1), generator=rng)
    start = (torch.rand(shape[0], 1, generator=rng) * (shape[axis] - width)).long()
    places = torch.arange(shape[axis])
    mask = (places >= start) & (places < start + width)
    return mask.unsqueeze(3 - axis).expand(shape)


def _versions() -> str:
    packages = ("torch", "torchaudio", "timm", "midirenderer", "numpy")
    return ", ".join([f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)])


if __name__ == "__main__":
    typer.run(main)
