"""Look at a study: the command that serves the MLflow UI, and the links that open its views.

python -m tracking.ui STUDY_DIR
"""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from tracking import views
from tracking.destination import Destination
from tracking.spool import Spool
from tracking.store import absolute_uri, without_password

DEFAULT_PORT = 5000
# With MLflow's job runner and its four workers the same UI takes fifteen processes and 2 GB.
_ENVIRONMENT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def ui_command(uri: str, *, port: int = DEFAULT_PORT) -> str | None:
    """Return the line for a shell that serves the UI, None if `uri` is a server already."""
    command = _server_command(absolute_uri(uri), port)
    settings = [f"{name}={value}" for name, value in _ENVIRONMENT.items()]
    return None if command is None else " ".join([*settings, shlex.join(command)])


def ui_link(uri: str, experiment_id: str, *, view: str = views.RANKED, port: int = DEFAULT_PORT) -> str:
    """Return the link that opens a view, on the server that `uri` is or that `ui_command` starts."""
    base = without_password(uri) if uri.startswith("http") else f"http://127.0.0.1:{port}"
    return views.view_url(base, experiment_id, view=view)


def main(
    study_dir: Annotated[Path, typer.Argument(help="The study's directory, which holds outbox.jsonl.")],
    port: Annotated[int, typer.Option(help="Serve the UI on this port.")] = DEFAULT_PORT,
) -> None:
    """Print the links to a study's views and serve the UI until Ctrl-C."""
    try:
        address = Spool(study_dir).read_address()
    except ValueError as problem:
        typer.echo(str(problem), err=True)
        raise typer.Exit(2) from None
    destination = Destination(address)
    destination.connect()
    for view, title in views.TITLES.items():
        link = ui_link(address.uri, str(destination.experiment_id), view=view, port=port)
        typer.echo(f"{title:24}{link}")
    if command := _server_command(address.uri, port):
        os.execve(command[0], command, {**os.environ, **_ENVIRONMENT})


def _server_command(uri: str, port: int) -> list[str] | None:
    if uri.startswith("http"):
        return None
    options = {"--workers": "1", "--backend-store-uri": uri, "--port": str(port)}
    return [sys.executable, "-m", "mlflow", "server", *(part for option in options.items() for part in option)]


if __name__ == "__main__":
    typer.run(main)
