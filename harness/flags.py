"""The flags that several commands share, each with its one help text."""

from typing import Annotated

import typer

Data = Annotated[str, typer.Option(help="demo, openmic, or a directory in OpenMIC-2018's layout.")]
DemoClips = Annotated[int | None, typer.Option(help="Size of the demo set.")]
Split = Annotated[str, typer.Option(help="Validation split: random, public or artist.")]
Fraction = Annotated[
    float, typer.Option(help="Share of the train and validation clips to use, stratified by label: 0.1 for a tenth.")
]
SkipCorrupt = Annotated[bool, typer.Option(help="Leave out unreadable clips, listing them.")]
Seed = Annotated[int, typer.Option(help="Seed of the split, the proposals and the trials.")]
Precision = Annotated[str, typer.Option(help="fp32 or bf16, the backbone's arithmetic in training.")]

Address = Annotated[str | None, typer.Option(help="Ray cluster to join, such as auto. [this machine]")]
Concurrent = Annotated[int | None, typer.Option(help="How many run at a time. [as many as fit]")]
GpusPerTrial = Annotated[float | None, typer.Option(help="GPUs of each that runs, 0.25 for four on one.")]
CpusPerTrial = Annotated[int | None, typer.Option(help="CPU cores of each that runs. [an equal share]")]

Storage = Annotated[str, typer.Option(help="Directory or URI of the studies and their results.")]
TrackingUri = Annotated[str | None, typer.Option(help="MLflow store. [SQLite beside the results]")]
