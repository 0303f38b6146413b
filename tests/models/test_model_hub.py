"""The hub, as a small local server that answers like it, and the cache when there is none.

Each case runs in a process of its own: huggingface_hub reads its settings when it is imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.models.conftest import save_tokenizer, tiny_gpt2

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROBE = """
import json, sys
from pathlib import Path
from circuitspec.diagnostics.diagnostic import CircuitspecError
from circuitspec.models.storage.hub import fetch_snapshot
from circuitspec.models.shapes import read_shape
from circuitspec.hypothesis_file.schema.blocks import ModelSpec

spec = ModelSpec(**json.loads(sys.argv[1]))
answer = {"shape": read_shape(spec, Path(".")) is not None}
try:
    snapshot = fetch_snapshot(spec.id, spec.revision, allow_pickle=spec.allow_pickle, progress=lambda stage: None)
    answer |= {"revision": snapshot.commit, "files": sorted(file.name for file in snapshot.directory.iterdir())}
    if sys.argv[2] == "load":
        from circuitspec.models.load import load_model

        p = load_model(spec, Path(".")).provenance
        answer |= {"n": p.n_parameters, "loaded": p.revision, "description": p.description}
except CircuitspecError as error:
    answer |= {"codes": [d.code for d in error.diagnostics], "text": str(error)}
print(json.dumps(answer))
"""


class Hub(ThreadingHTTPServer):
    """Serves `repos[name][file]` as the hub's API and file downloads do."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.asked: list[str] = []
        self.broken = False


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.server.asked.append(path)
        if self.server.broken:
            return self._answer(503)
        api = path.startswith("api/models/")
        parts = path.removeprefix("api/models/").split("/")
        name, rest = "/".join(parts[:2]), parts[2:]
        if name in self.server.gated:
            return self._answer(403, error="GatedRepo")
        if name not in self.server.repos:
            return self._answer(401 if api else 404, error="RepoNotFound")
        files = self.server.repos[name]
        revision = rest[1] if len(rest) > 1 else "main"
        if revision not in ("main", COMMIT):
            return self._answer(404, error="RevisionNotFound")
        if not api:
            file = "/".join(rest[2:])
            if file not in files:
                return self._answer(404, error="EntryNotFound")
            return self._answer(200, files[file])
        if rest[:1] == ["tree"]:
            entries = [
                {"type": "file", "path": f, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                for f, b in files.items()
            ]
            return self._answer(200, json.dumps(entries).encode())
        info = {"_id": "0", "id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
        return self._answer(200, json.dumps(info).encode())

    def _answer(self, status: int, body: bytes = b"{}", error: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        if error is not None:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    directory = tmp_path / "model"
    tiny_gpt2().save_pretrained(directory)
    save_tokenizer(directory)
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    server = Hub()
    server.repos["someone/tiny"] = {
        **files,
        "pytorch_model.bin": b"never to be fetched",
        "tf_model.h5": b"nor this",
        "onnx/model.onnx": b"nor this",
        "README.md": b"nor this",
    }
    server.repos["someone/pickled"] = {
        **{name: content for name, content in files.items() if name != "model.safetensors"},
        "pytorch_model.bin": b"not weights",
    }
    server.repos["someone/empty"] = {"README.md": b"nothing here"}
    server.gated.add("someone/gated")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def probe(
    tmp_path: Path, endpoint: str, *, offline: bool = False, load: bool = False, **spec: object
) -> dict[str, Any]:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))},
        "HF_HOME": str(tmp_path / "hf-home"),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1" if offline else "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(spec), "load" if load else "fetch"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()  # nothing else may be said on stdout
    answer: dict[str, Any] = json.loads(line)
    return answer


def endpoint(hub: Hub) -> str:
    return f"http://127.0.0.1:{hub.server_address[1]}"


@pytest.mark.nightly
def test_fetched_once_then_served_from_the_cache(hub: Hub, tmp_path: Path) -> None:
    first = probe(tmp_path, endpoint(hub), load=True, id="someone/tiny")
    assert first["revision"] == first["loaded"] == COMMIT
    assert first["n"] == sum(parameter.numel() for parameter in tiny_gpt2().parameters())
    assert first["description"] == "someone/tiny"
    assert first["shape"] is False  # reading the shape asks no network, and nothing was cached yet
    files = set(first["files"])
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= files
    assert not files & {"pytorch_model.bin", "tf_model.h5", "onnx", "README.md"}
    for revision in (None, "main", COMMIT):
        again = probe(tmp_path, "http://127.0.0.1:9", offline=True, id="someone/tiny", revision=revision)
        assert (again["revision"], again["shape"]) == (COMMIT, True)
    unreachable = probe(tmp_path, "http://127.0.0.1:9", id="someone/tiny")
    assert unreachable["revision"] == COMMIT


def test_what_the_hub_does_not_have(hub: Hub, tmp_path: Path) -> None:
    for spec in (
        {"id": "someone/nothing"},
        {"id": "someone/gated"},
        {"id": "someone/tiny", "revision": "no-such-branch"},
    ):
        assert probe(tmp_path, endpoint(hub), **spec)["codes"] == ["CS316"], spec


@pytest.mark.nightly
def test_pickled_weights_only_on_request(hub: Hub, tmp_path: Path) -> None:
    assert probe(tmp_path, endpoint(hub), id="someone/pickled")["codes"] == ["CS308"]
    assert not any("pytorch_model.bin" in path for path in hub.asked)
    pickled = probe(tmp_path, endpoint(hub), load=True, id="someone/pickled", allow_pickle=True)
    assert "pytorch_model.bin" in pickled["files"]
    assert pickled["codes"] == ["CS309"]  # as the served file is no pickle
    assert any("pytorch_model.bin" in path for path in hub.asked)
    assert probe(tmp_path, endpoint(hub), id="someone/empty")["codes"] == ["CS308"]


def test_hub_out_of_reach(hub: Hub, tmp_path: Path) -> None:
    assert probe(tmp_path, "http://127.0.0.1:9", id="someone/tiny")["codes"] == ["CS317"]
    assert probe(tmp_path, "http://127.0.0.1:9", offline=True, id="someone/tiny")["codes"] == ["CS317"]
    hub.broken = True
    assert probe(tmp_path, endpoint(hub), id="someone/tiny")["codes"] == ["CS317"]
