"""Fetch, check, prepare and generate data sets; harness/data/README.md is the manual."""

import os
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from harness.common import cli as flags
from harness.common.cli import (
    EXIT_FAILURE,
    EXIT_OK,
    absolute_place,
    configure_logging,
    prepare_environment,
    report_errors,
)
from harness.common.files import make_directory
from harness.config.checks import one_of
from harness.config.study import DataSpec
from search_spaces import PRESETS

if TYPE_CHECKING:
    from harness.data.check import LabelCounts
    from harness.features.log_mel import FrontEnd

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)


@app.callback(help=__doc__)
def main() -> None:
    """Hold the sub-commands together."""
    configure_logging()


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Data set: openmic.", metavar="NAME")],
    to: Annotated[Path, typer.Option(help="Directory to put the data set's own directory in.")],
    mirror: Annotated[
        str | None, typer.Option(help="URL of the archive, or of its folder with / at the end. [Zenodo]")
    ] = None,
    archive: Annotated[Path | None, typer.Option(help="A copy of the archive on this machine.")] = None,
    md5: Annotated[
        str | None, typer.Option(help="Checksum of another archive of the same layout. [that of v1.0.0]")
    ] = None,
    keep_archive: Annotated[bool, typer.Option(help="Keep the archive beside the unpacked files.")] = False,
) -> None:
    """Download a data set, verify and unpack it. Run the command again to resume after an interruption.

    HTTPS_PROXY, HTTP_PROXY and NO_PROXY apply.
    """
    with report_errors(lambda: "run the same command again to go on"):
        _check_fetch(name, mirror=mirror, archive=archive, md5=md5, keep_archive=keep_archive)
        from harness.common.progress import track  # noqa: PLC0415
        from harness.data.fetch import OPENMIC_2018, Fetch  # noqa: PLC0415

        release = OPENMIC_2018
        if mirror is not None:
            release = replace(release, url=mirror + (release.archive_name if mirror.endswith("/") else ""))
        if md5 is not None and md5.lower() != release.md5:  # another archive, of unknown size
            release = replace(release, md5=md5.lower(), unpacked_bytes=None)
        place = Fetch(
            release,
            to.expanduser().absolute(),
            archive=archive.expanduser().absolute() if archive is not None else None,
            keeps_archive=keep_archive,
            say=typer.echo,
            progress=track,
        ).run()
        _say_what_next(place, prepare="--backbone ast-base384", study="--backbone ast-base384 --space unet")
        typer.echo(f"or once     export OPENMIC_2018={shlex.quote(str(place))}, and then --data openmic")


def _check_fetch(name: str, *, mirror: str | None, archive: Path | None, md5: str | None, keep_archive: bool) -> None:
    """Refuse arguments that cannot work, before anything else happens.

    Raises:
        ValueError: the message names the flag.
    """
    if name != "openmic":
        raise ValueError(f"{name}: no data set that can be fetched; there is openmic")
    ignored = [flag for flag, is_given in (("--mirror", mirror), ("--keep-archive", keep_archive)) if is_given]
    if archive is not None and ignored:
        raise ValueError(f"archive: cannot go with {', '.join(ignored)}; the given file is used where it lies")
    if mirror is not None and (urlsplit(mirror).scheme not in {"http", "https"} or not urlsplit(mirror).netloc):
        raise ValueError(f"mirror={mirror}: must be a URL that begins with http:// or https://")
    if md5 is not None and not re.fullmatch("[0-9a-fA-F]{32}", md5):
        raise ValueError(f"md5={md5}: must be 32 hexadecimal digits")


def _say_what_next(place: Path, *, prepare: str, study: str) -> None:
    where = shlex.quote(str(place))
    typer.echo(f"{place}\ncheck it    python -m harness.data check {where}")
    typer.echo(f"prepare it  python -m harness.data prepare --data {where} {prepare}".rstrip())
    typer.echo(f"use it      python -m harness.study --data {where} {study}")


@app.command()
def prepare(
    data: flags.Data = "demo",
    backbone: Annotated[
        str, typer.Option(help="Its front end computes the log-mels, as --backbone of a study.")
    ] = "ast-nano",
    preset: Annotated[str | None, typer.Option(help="The front end of the recipe paper or released.")] = None,
    fraction: flags.Fraction = 1.0,
    split: Annotated[str | None, typer.Option(help="With --fraction: random, public or artist. [random]")] = None,
    seed: Annotated[int | None, typer.Option(help="With --fraction: seed of the study. [0]")] = None,
    skip_corrupt: flags.SkipCorrupt = False,
    cpus: Annotated[int | None, typer.Option(help="Cores of this machine to use. [all]")] = None,
    address: flags.Address = None,
) -> None:
    """Compute every clip's log-mel now, once and for all studies; type the command again to go on if interrupted.

    Otherwise the first study does it. With --address, every node of the cluster fills its cache.
    """
    prepare_environment(joins_cluster=address is not None)
    with report_errors(lambda: "run the same command again to go on"):
        _check_prepare(preset, fraction=fraction, split=split, seed=seed, cpus=cpus, address=address)
        spec = DataSpec(
            source=absolute_place(data, flag="data"),
            split=split or "random",
            split_seed=seed or 0,
            fraction=fraction,
            skips_corrupt=skip_corrupt,
        )
        front_end = _front_end(absolute_place(backbone, flag="backbone"), preset)
        # Ray reads the environment when it is imported
        from harness.common.progress import track  # noqa: PLC0415
        from harness.common.ray_start import cpu_count, start_ray  # noqa: PLC0415
        from harness.study.cluster import FilledCache, as_flags, lines_of, prepare_cluster, prepare_here  # noqa: PLC0415
        from harness.study.sources import open_dataset  # noqa: PLC0415

        cores = cpus or cpu_count()
        dataset = open_dataset(spec, workers=cores, progress=track)
        if address is None:
            outcomes = [prepare_here(spec, dataset, front_end, cores=cores)]
        else:
            start_ray(address)
            outcomes = prepare_cluster(spec, dataset, front_end, cores=cores, say=typer.echo)
        again: dict[str, object] = {
            "--data": data,
            "--backbone": backbone,
            "--preset": preset,
            "--split": split,
            "--seed": seed,
        }
        again |= {"--fraction": None if fraction == 1 else fraction, "--address": address}
        for line in lines_of(outcomes, [*as_flags(again), *(["--skip-corrupt"] if skip_corrupt else [])]):
            typer.echo(line)
    raise typer.Exit(EXIT_OK if all(isinstance(outcome, FilledCache) for _, outcome in outcomes) else EXIT_FAILURE)


def _check_prepare(
    preset: str | None,
    *,
    fraction: float,
    split: str | None,
    seed: int | None,
    cpus: int | None,
    address: str | None,
) -> None:
    """Refuse arguments that cannot work, and flags without effect.

    Raises:
        ValueError: the message names the flag.
    """
    if preset is not None:
        one_of("preset", preset, tuple(PRESETS))
    ignored = [flag for flag, value in (("--split", split), ("--seed", seed)) if value is not None]
    if fraction == 1 and ignored:
        raise ValueError(f"fraction=1: cannot go with {', '.join(ignored)}; all clips are prepared")
    if cpus is not None and cpus < 1:
        raise ValueError(f"cpus={cpus}: must be at least 1")
    if cpus is not None and address is not None:
        raise ValueError(f"address={address}: cannot go with --cpus; a cluster has the cores it has")


def _front_end(backbone: str, preset: str | None) -> "FrontEnd":
    """Return the front end of a backbone, as a preset changes it."""
    from harness.models.backbones import load_backbone  # noqa: PLC0415

    recipe = PRESETS[preset].paths if preset is not None else {}
    changes = {
        path.removeprefix("front_end/"): value for path, value in recipe.items() if path.startswith("front_end/")
    }
    return replace(load_backbone(backbone).front_end, **changes)


@app.command()
def check(
    place: Annotated[Path, typer.Argument(help="Directory of a data set.", metavar="DIR")],
    audio: Annotated[bool, typer.Option("--audio", help="Decode every clip. [a few]")] = False,
    everything: Annotated[bool, typer.Option("--all", help="List all problems. [the first of each kind]")] = False,
    figure: Annotated[Path | None, typer.Option(help="Draw the label statistics into this .png file.")] = None,
) -> None:
    """Report the contents of a data set and everything that keeps a study from using it.

    Exit status 1 if a study could not use it, 2 if nothing there looks like a data set.
    """
    with report_errors(lambda: "run the same command again"):
        if figure is not None and figure.suffix != ".png":
            raise ValueError(f"figure={figure}: must end in .png")
        from harness.common.progress import track  # noqa: PLC0415
        from harness.data.check import check_directory, count_labels, lines_of  # noqa: PLC0415

        found = check_directory(place.expanduser(), decodes_all=audio, progress=track)
        for line in lines_of(found, lists_all=everything):
            typer.echo(line)
        if figure is not None and found.dataset is not None:
            _draw(figure, count_labels(found.dataset), title=found.root.name)
            typer.echo(f"figure    {figure}")
    raise typer.Exit(EXIT_OK if found.is_usable else EXIT_FAILURE)


def _draw(figure: Path, counts: "LabelCounts", *, title: str) -> None:
    """Draw the label statistics.

    Raises:
        OSError: the figure cannot be written.
    """
    from tracking.paper_figures import label_distribution  # noqa: PLC0415

    stem = figure.with_suffix("")
    try:
        make_directory(figure.parent)
        label_distribution(stem, counts["train"], test=counts["test"], title=title, suffixes=[figure.suffix])
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            f"figure={figure}: only the figure could not be written ({reason}); the report above is complete"
        ) from error


@app.command()
def generate(
    to: Annotated[Path, typer.Option(help="Directory to put the data set's own directory in.")],
    clips: Annotated[int, typer.Option(help="How many clips, at least 200.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Seed of the clips and annotations.")] = 0,
) -> None:
    """Make a data set with the shape of OpenMIC-2018, to try its full size with 40 MB on disk."""
    with report_errors(lambda: "run the same command again"):
        from harness.common.progress import track  # noqa: PLC0415
        from harness.synthetic.openmic_sized import write_stand_in  # noqa: PLC0415

        workers = len(os.sched_getaffinity(0))
        place = write_stand_in(to.expanduser().absolute(), n_clips=clips, seed=seed, workers=workers, progress=track)
        _say_what_next(place, prepare="", study="--space unet --fraction 0.01")


if __name__ == "__main__":
    sys.exit(app())
