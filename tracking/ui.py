"""How to look at a study: the command that serves the MLflow UI, and the links that open its views."""

import shlex
import sys

from tracking import views
from tracking.store import absolute_uri

DEFAULT_PORT = 5000


def server_command(uri: str, *, port: int = DEFAULT_PORT) -> list[str] | None:
    """Return the command that serves the UI of a database, None if `uri` is a server already."""
    uri = absolute_uri(uri)
    if uri.startswith("http"):
        return None
    return [
        sys.executable, "-m", "mlflow", "server",
        "--workers", "1", "--backend-store-uri", uri, "--port", str(port),
    ]  # fmt: skip


def ui_command(uri: str, *, port: int = DEFAULT_PORT) -> str | None:
    """Return the line for a shell that serves the UI, None if `uri` is a server already.

    With MLflow's job runner and its default of four workers the same takes fifteen processes and 2 GB.
    """
    command = server_command(uri, port=port)
    return None if command is None else f"MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {shlex.join(command)}"


def ui_link(uri: str, experiment_id: str, *, view: str = views.RANKED, port: int = DEFAULT_PORT) -> str:
    """Return the link that opens a view, on the server that `uri` is or that `ui_command` starts."""
    base = uri if uri.startswith("http") else f"http://127.0.0.1:{port}"
    return views.view_url(base, experiment_id, view=view)
