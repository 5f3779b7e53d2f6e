"""Published checkpoints by name, from a hub of this machine's own."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harness.models.ast import GEOMETRIES
from harness.models.hub import CHECKPOINTS

REVISION = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b'{"hidden_size": 768}', "model.safetensors": b"weights " * 1000}
SHA256 = hashlib.sha256(FILES["model.safetensors"]).hexdigest()

FETCH = """
import json, sys
from harness.models.hub import Checkpoint, fetch
try:
    place = fetch("ast-base384", Checkpoint(**json.loads(sys.argv[1])))
    print(json.dumps({file.name: len(file.read_bytes()) for file in sorted(place.iterdir())}))
except (ValueError, OSError) as error:
    print(f"{type(error).__name__}: {error}")
"""


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does where a file is resolved."""

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self._answer(with_body=True)

    def _answer(self, *, with_body):
        self.asked.append(f"{self.command} {self.path}")
        folder, _, name = self.path.rpartition("/")
        body = FILES.get(name) if folder == f"/MIT/ast/resolve/{REVISION}" else None
        self.send_response(200 if body else 404)
        if body is None:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("ETag", f'"{hashlib.sha256(body or b"").hexdigest()}"')
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if with_body and body:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    handler = type("Handler", (Hub,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked
    server.shutdown()
    server.server_close()


def fetch(home, endpoint, *, offline=False, repo="MIT/ast", sha256=SHA256):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": str(int(offline))}
    checkpoint = json.dumps({"repo": repo, "revision": REVISION, "sha256": sha256})
    command = [sys.executable, "-c", FETCH, checkpoint]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip()


def test_it_is_fetched_once_and_then_read_without_a_network(tmp_path, hub):
    endpoint, asked = hub
    found = json.loads(fetch(tmp_path, endpoint))
    assert found == {name: len(content) for name, content in FILES.items()}
    assert any("GET" in request and "model.safetensors" in request for request in asked)
    asked.clear()
    assert json.loads(fetch(tmp_path, endpoint, offline=True)) == found
    assert asked == []


def test_weights_that_were_not_published_are_refused(tmp_path, hub):
    said = fetch(tmp_path, hub[0], sha256="0" * 64)
    assert said.startswith("ValueError: backbone=ast-base384: ")
    assert f"has SHA-256 {SHA256}, the published weights have {'0' * 64}" in said


@pytest.mark.parametrize(
    ("offline", "repo", "endpoint"), [(True, "MIT/ast", None), (False, "MIT/gone", None), (False, "MIT/ast", "dead")]
)
def test_what_cannot_be_fetched_says_what_to_do(tmp_path, hub, offline, repo, endpoint):
    said = fetch(tmp_path, "http://127.0.0.1:9" if endpoint else hub[0], offline=offline, repo=repo)
    assert said.startswith(f"FileNotFoundError: backbone=ast-base384: {repo} is not in the Hugging Face cache")
    assert f"`hf download {repo} --revision {REVISION} config.json model.safetensors --local-dir DIR`" in said


def test_the_papers_checkpoint_is_pinned_to_its_bytes():
    checkpoint = CHECKPOINTS["ast-base384"]
    assert checkpoint.repo == "MIT/ast-finetuned-audioset-10-10-0.4593"
    assert len(checkpoint.revision) == 40
    assert len(checkpoint.sha256) == 64
    assert set(GEOMETRIES) - {"ast-nano"} <= set(CHECKPOINTS)
