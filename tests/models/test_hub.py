"""Published checkpoints by name, from a hub of this machine's own."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import load_file

from harness.models.backbones import backbone_digest
from harness.models.backbones.checkpoints import load_ast
from tests.support.ast_files import SMALL, random_ast

pytestmark = pytest.mark.drill

REVISION = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b'{"hidden_size": 768}', "model.safetensors": b"weights " * 1000}
SHA256 = hashlib.sha256(FILES["model.safetensors"]).hexdigest()

FETCH = """
import json, sys, time
time.sleep = lambda seconds: None  # the hub tries six times before it takes a connection for dead, 23 s in all
from harness.models.backbones.hub import Checkpoint, fetch
try:
    place = fetch("ast-base384", Checkpoint(**json.loads(sys.argv[1])))
    print(json.dumps({file.name: len(file.read_bytes()) for file in sorted(place.iterdir())}))
except (ValueError, OSError) as error:
    print(f"{type(error).__name__}: {error}")
"""
LOAD = """
import json, sys
from harness.models.backbones import backbone_digest, load_backbone, origin_of
from harness.models.backbones.hub import CHECKPOINTS, Checkpoint
names = json.loads(sys.argv[1])
CHECKPOINTS.update({name: Checkpoint(f"MIT/{name}") for name in names})
said = {}
for name in names:
    try:
        said[name] = [backbone_digest(load_backbone(name)), origin_of(name)]
    except (ValueError, OSError) as error:
        said[name] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does where a file is resolved, by the name of a branch or of the one commit."""

    protocol_version = "HTTP/1.1"
    repos: dict[str, dict[str, bytes]]
    asked: list[str]

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self._answer(with_body=True)

    def _answer(self, *, with_body):
        self.asked.append(f"{self.command} {self.path}")
        repo, _, file = self.path.removeprefix("/").partition("/resolve/")
        revision, _, name = file.partition("/")
        files = self.repos.get(repo) if revision in ("main", REVISION) else None
        body = (files or {}).get(name)
        self.send_response(200 if body else 404)
        if body is None:
            self.send_header("X-Error-Code", "RepoNotFound" if files is None else "EntryNotFound")
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
    handler = type("Handler", (Hub,), {"asked": [], "repos": {"MIT/ast": FILES}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


def run(script, argument, home, endpoint, *, offline):
    command = [sys.executable, "-c", script, json.dumps(argument)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": str(int(offline))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip()


def fetch(home, endpoint, *, offline=False, repo="MIT/ast", sha256=SHA256):
    checkpoint = {"repo": repo, "revision": REVISION, "sha256": sha256}
    return run(FETCH, checkpoint, home, endpoint, offline=offline)


def test_it_is_fetched_once_and_then_read_without_a_network(tmp_path, hub):
    endpoint, handler = hub
    found = json.loads(fetch(tmp_path, endpoint))
    assert found == {name: len(content) for name, content in FILES.items()}
    assert any("GET" in request and "model.safetensors" in request for request in handler.asked)
    handler.asked.clear()
    assert json.loads(fetch(tmp_path, endpoint, offline=True)) == found
    assert handler.asked == []


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
    assert "HF_HUB_OFFLINE=1" in said
    assert "HF_HOME" in said


@pytest.fixture
def published(hub, tmp_path):
    """Fill the hub with small ASTs: whole, never converted to safetensors, without weights."""
    endpoint, handler = hub
    random_ast(**SMALL).save_pretrained(tmp_path / "ast")
    config, weights = ((tmp_path / "ast" / name).read_bytes() for name in ("config.json", "model.safetensors"))
    torch.save(load_file(tmp_path / "ast" / "model.safetensors"), tmp_path / "pytorch_model.bin")
    handler.repos |= {
        "MIT/whole": {"config.json": config, "model.safetensors": weights},
        "MIT/pickled": {"config.json": config, "pytorch_model.bin": (tmp_path / "pytorch_model.bin").read_bytes()},
        "MIT/empty": {"config.json": config},
    }
    return endpoint, handler, hashlib.sha256(weights).hexdigest()


def test_a_checkpoint_without_a_pinned_revision_is_recorded_by_commit_and_checksum(tmp_path, published):
    endpoint, handler, sha256 = published
    names = ["whole", "pickled", "empty"]
    said = json.loads(run(LOAD, names, tmp_path / "home", endpoint, offline=False))
    record = {"backbone_repo": "MIT/whole", "backbone_revision": REVISION, "backbone_sha256": sha256}
    digest = backbone_digest(load_ast(tmp_path / "ast"))
    assert said["whole"] == [digest, {**record, "backbone_file": "model.safetensors"}]
    found, record = said["pickled"]
    assert (found, record["backbone_file"]) == (digest, "pytorch_model.bin")
    assert said["empty"].startswith("FileNotFoundError: backbone=empty: MIT/empty is not in the Hugging Face cache")
    assert "hf download MIT/empty config.json" in said["empty"]

    handler.asked.clear()
    again = json.loads(run(LOAD, ["whole", "pickled"], tmp_path / "home", endpoint, offline=True))
    assert again == {name: said[name] for name in ("whole", "pickled")}
    assert handler.asked == []
