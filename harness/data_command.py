"""Data sets on this machine: `python -m harness.data fetch openmic --to DIR`, `python -m harness.data check DIR`."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from harness.command import DONE, FELL_SHORT, configure_logging, said_to_the_user

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)

PUBLISHED = ("openmic",)
FIGURE = "label-distribution.png"


@app.callback(help=__doc__)
def main() -> None:
    """Hold the sub-commands together."""
    configure_logging()


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Data set: openmic.", metavar="NAME")],
    to: Annotated[Path, typer.Option(help="Directory that the data set's own directory is put in.")],
    mirror: Annotated[
        str | None, typer.Option(help="URL of the archive, or with / at the end of where it lies. [Zenodo]")
    ] = None,
    archive: Annotated[Path | None, typer.Option(help="The archive, if it is on this machine already.")] = None,
    md5: Annotated[
        str | None, typer.Option(help="Checksum of another archive of the same layout. [that of v1.0.0]")
    ] = None,
    keep_archive: Annotated[bool, typer.Option(help="Keep the archive beside what was unpacked.")] = False,
) -> None:
    """Download a data set, verify and unpack it; type the command again to go on with what was interrupted.

    HTTPS_PROXY, HTTP_PROXY and NO_PROXY are honoured.
    """
    with said_to_the_user(lambda: "run the same command again to go on"):
        _check_fetch(name, mirror=mirror, archive=archive, md5=md5, keep_archive=keep_archive)
        from harness.data.byte_progress import track_bytes  # noqa: PLC0415
        from harness.data.fetch import OPENMIC_2018, Fetch  # noqa: PLC0415

        release = OPENMIC_2018
        if mirror is not None:
            release = replace(release, url=mirror + (release.archive_name if mirror.endswith("/") else ""))
        if md5 is not None and md5.lower() != release.md5:  # another archive, of which no size is known
            release = replace(release, md5=md5.lower(), archive_bytes=None, unpacked_bytes=None)
        place = Fetch(
            release,
            to.expanduser().absolute(),
            archive=archive.expanduser().absolute() if archive is not None else None,
            keeps_archive=keep_archive,
            say=typer.echo,
            progress=track_bytes,
        ).run()
        typer.echo(f"{place}\ncheck it:  python -m harness.data check {place}")
        typer.echo(f"use it:    python -m harness.study --data {place} --space unet --skip-corrupt")
        typer.echo(f"or once:   export OPENMIC_2018={place}, and then --data openmic")


@app.command()
def check(
    place: Annotated[Path, typer.Argument(help="Directory in OpenMIC-2018's layout.", metavar="DIR")],
    audio: Annotated[bool, typer.Option("--audio", help="Read the header of every clip. [of a few]")] = False,
    everything: Annotated[bool, typer.Option("--all", help="List all problems. [the first of each kind]")] = False,
    figure: Annotated[Path, typer.Option(help="Where the label statistics are drawn, a .png file.")] = Path(FIGURE),
) -> None:
    """Tell what is in a data set's directory and what is missing. Exit status 1 if a study could not use it."""
    with said_to_the_user(lambda: "run the same command again"):
        if figure.suffix != ".png":
            raise ValueError(f"figure={figure}: must end in .png")
        from harness.data.check import check_directory  # noqa: PLC0415
        from harness.data.check_report import lines_of  # noqa: PLC0415
        from harness.data.progress import track  # noqa: PLC0415

        found = check_directory(place.expanduser(), reads_all_audio=audio, progress=track)
        for line in lines_of(found, lists_all=everything):
            typer.echo(line)
        if found.counts is not None:
            from tracking.paper_figures import label_distribution  # noqa: PLC0415

            stem, counts, title = figure.with_suffix(""), found.counts, found.root.absolute().name
            drawn = label_distribution(stem, counts["train"], test=counts["test"], title=title, suffixes=[".png"])
            typer.echo(f"figure    {drawn[0]}")
    raise typer.Exit(DONE if found.is_usable else FELL_SHORT)


def _check_fetch(name: str, *, mirror: str | None, archive: Path | None, md5: str | None, keep_archive: bool) -> None:
    """Refuse what no archive could be fetched with, before anything else happens.

    Raises:
        ValueError: the message names the flag.
    """
    if name not in PUBLISHED:
        raise ValueError(f"{name}: no data set that can be fetched; there is {', '.join(PUBLISHED)}")
    ignored = [flag for flag, is_given in (("--mirror", mirror), ("--keep-archive", keep_archive)) if is_given]
    if archive is not None and ignored:
        raise ValueError(f"archive: cannot go with {', '.join(ignored)}; the given file is used where it lies")
    if mirror is not None and (urlsplit(mirror).scheme not in {"http", "https"} or not urlsplit(mirror).netloc):
        raise ValueError(f"mirror={mirror}: must be a URL that begins with http:// or https://")
    if md5 is not None and not re.fullmatch("[0-9a-fA-F]{32}", md5):
        raise ValueError(f"md5={md5}: must be 32 hexadecimal digits")
