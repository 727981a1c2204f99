"""Perturbations on a hub: huggingface_hub's own client against a small server that keeps what it gets."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch

import upi
from upi.core.errors import ArtifactError, ConfigError
from upi.perturbation import hub

huggingface_hub = pytest.importorskip("huggingface_hub")
COMMIT = "0" * 39 + "1"


class Server(BaseHTTPRequestHandler):
    """The calls that pushing and fetching take."""

    files: dict[str, bytes]
    made: list[dict[str, Any]]
    cards: list[str]
    refuse = False

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def _answer(self, content: Any, code: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.refuse:
            self._answer({"error": "you may not write here"}, 403)
        elif self.path == "/api/repos/create":
            self.made.append(json.loads(body))
            self._answer({"url": "https://huggingface.co/user/name"})
        elif self.path == "/api/validate-yaml":
            self.cards.append(json.loads(body)["content"])
            self._answer({"warnings": [], "errors": []})
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            self._answer(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked
                    ]
                }
            )
        else:
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            url = f"https://huggingface.co/user/name/commit/{COMMIT}"
            self._answer({"success": True, "commitUrl": url, "commitOid": COMMIT, "hookOutput": ""})

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if name not in self.files:
            self._answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            return
        content = self.files[name]
        digest = hashlib.sha256(content).hexdigest()
        self._answer(content, ETag=f'"{digest}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET  # noqa: N815


@pytest.fixture
def server(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[type[Server]]:
    kept = type("Kept", (Server,), {"files": {}, "made": [], "cards": []})
    running = ThreadingHTTPServer(("127.0.0.1", 0), kept)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{running.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub")))
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    yield kept
    running.shutdown()
    running.server_close()


@pytest.fixture
def pattern() -> upi.Perturbation:
    torch.manual_seed(0)
    delta = torch.randn(1, 8, 8)
    delta = 0.9 * delta / delta.norm()
    return upi.Perturbation(delta, upi.Ball("l2", 1.0), {"method": "upi-grad", "saliency": "gradient"})


def test_what_was_pushed_comes_back_bit_by_bit_with_a_card(
    server: type[Server], pattern: upi.Perturbation
) -> None:
    assert COMMIT in pattern.push_to_hub("user/name", private=True)
    assert server.made[0]["name"] == "name"
    assert "private" in {server.made[0].get("visibility"), "private" if server.made[0].get("private") else ""}
    again = upi.Perturbation.from_hub("user/name")
    assert torch.equal(again.delta, pattern.delta)
    assert (again.ball, again.provenance) == (pattern.ball, pattern.provenance)
    card = server.files["README.md"].decode()
    assert card.startswith("---\n")
    assert "* method: `upi-grad`" in card
    assert "USER/NAME" not in card


def test_a_hub_that_refuses_and_files_that_are_not_there(
    server: type[Server], pattern: upi.Perturbation
) -> None:
    server.refuse = True
    with pytest.raises(ArtifactError, match=r"user/name: cannot be pushed: .*403"):
        pattern.push_to_hub("user/name")
    with pytest.raises(ArtifactError, match=r"none\.safetensors of user/name: cannot be had"):
        upi.Perturbation.from_hub("user/name", name="none.safetensors")


def test_a_foreign_file_is_refused_and_never_unpickled(server: type[Server]) -> None:
    server.files[hub.FILE] = b"\x80\x04."
    with pytest.raises(ArtifactError):
        upi.Perturbation.from_hub("user/name")


def test_names_and_tokens_are_looked_at_first(
    server: type[Server], monkeypatch: pytest.MonkeyPatch, pattern: upi.Perturbation
) -> None:
    with pytest.raises(ConfigError, match="no name of a repository"):
        pattern.push_to_hub("user/name/more/../..")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ConfigError, match="needs a token"):
        pattern.push_to_hub("user/name")
    assert server.made == []


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"upi-xai\[hub\]"):
        hub.require_hub("user/name")
