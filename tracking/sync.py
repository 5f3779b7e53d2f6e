"""Deliver the records of a study that MLflow lacks.

    python -m tracking.sync STUDY_DIR

Exit status: 0 if everything is delivered, 1 if not, 2 if there is no outbox or no store.
"""

import time
from pathlib import Path
from typing import Annotated

import typer

from tracking.mlflow_store import Address
from tracking.outbox import Courier, Spool
from tracking.uris import checked_uri

_REPORT_S = 2.0
_PAUSE_S = 1.0


def open_address(study_dir: Path, *, tracking_uri: str | None = None, creates: bool = False) -> Address:
    """Return the address of a study's records, or the same experiment in another store.

    Raises:
        ValueError: there is no outbox, or no such SQLite store and nobody asked to create it.
    """
    address, _ = Spool(study_dir).read_state()
    if tracking_uri is not None:
        address = Address(checked_uri(tracking_uri), address.experiment)
    if address.is_missing and not creates:
        raise ValueError(
            f"no MLflow store at {address}. If it was moved, name its new place: --tracking-uri sqlite:///PATH. "
            f"To make it, and deliver all records: python -m tracking.sync {study_dir} --create"
        )
    return address


def deliver_all(courier: Courier, *, patience_s: float) -> str | None:
    """Deliver until nothing is left; return the error if nothing has moved for `patience_s`."""
    left, error = courier.left(), "another process holds outbox.lock"
    moved = time.monotonic()
    typer.echo(f"{left} records to deliver to {courier.store.address}")
    while True:
        report_at = time.monotonic() + _REPORT_S
        error = courier.deliver(must_stop=lambda: time.monotonic() > report_at) or error  # noqa: B023  called in this turn
        still = courier.left()
        if not still:
            return None
        if still != left:  # more are left if the store has lost the study
            left, moved = still, time.monotonic()
            typer.echo(f"{left} left")
        elif time.monotonic() - moved > patience_s:
            return error
        else:
            time.sleep(_PAUSE_S)


def main(
    study_dir: Annotated[Path, typer.Argument(help="The study's directory, which holds outbox.jsonl.")],
    tracking_uri: Annotated[
        str | None, typer.Option(help="Deliver all records to this store instead. [the study's own]")
    ] = None,
    patience: Annotated[float, typer.Option(help="Give up after this many seconds without progress.")] = 30.0,
    create: Annotated[bool, typer.Option("--create", help="Create the SQLite store if there is none.")] = False,
) -> None:
    """Deliver the records of a study that MLflow lacks; exit with 1 if some are left."""
    try:
        courier = Courier(Spool(study_dir), open_address(study_dir, tracking_uri=tracking_uri, creates=create))
    except ValueError as problem:
        typer.echo(f"error: {problem}", err=True)
        raise typer.Exit(2) from None
    error = deliver_all(courier, patience_s=patience)
    if courier.refused:
        typer.echo(f"MLflow refused {courier.refused} records; the warnings above give the reason", err=True)
    if error:
        typer.echo(f"{courier.left()} records are left: {error}", err=True)
    if error or courier.refused:
        raise typer.Exit(1)
    typer.echo("all delivered")


if __name__ == "__main__":
    typer.run(main)
