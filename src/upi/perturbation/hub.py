"""Perturbations on the Hugging Face hub, through huggingface_hub (``pip install 'upi-xai[hub]'``).

A repository holds safetensors files as ``Perturbation.save`` writes them and a card, README.md. Nothing that
comes from there is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from upi.core.errors import ArtifactError, ConfigError

FILE = "perturbation.safetensors"
CARD = "README.md"


def _hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError(
            f"the hub needs the package huggingface_hub: pip install 'upi-xai[hub]' ({error})"
        ) from error
    return huggingface_hub


def require_hub(repo_id: str, *, token: str | None = None) -> None:
    """Refuse what cannot be pushed before the work begins: no package, no such name, no token.

    Raises:
        ConfigError: One of these.
    """
    hub = _hub()
    try:
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined,unused-ignore]

        validate_repo_id(repo_id)
    except ValueError as error:
        raise ConfigError(f"{repo_id!r} is no name of a repository: {error}") from error
    if token is None and hub.get_token() is None:
        raise ConfigError(
            "pushing needs a token of the hub with the right to write: 'hf auth login', or HF_TOKEN in the "
            "environment"
        )


def push_files(
    files: Mapping[str, bytes | Path],
    repo_id: str,
    *,
    message: str,
    private: bool = False,
    token: str | None = None,
) -> str:
    """Put files into a repository of models in one commit; the repository is made where there is none.

    Args:
        files: Content or local file by name in the repository.
        repo_id: ``user/name``.
        message: Of the commit.
        private: Of a repository that is made.
        token: Of the hub; by default the one that is logged in.

    Returns:
        Where the commit can be seen.

    Raises:
        ConfigError: There is no package, no such name, or no token.
        ArtifactError: The hub cannot be reached, or refuses.
    """
    require_hub(repo_id, token=token)
    hub = _hub()
    api = hub.HfApi(token=token, library_name="upi-xai")
    operations = [
        hub.CommitOperationAdd(
            path_in_repo=name, path_or_fileobj=content if isinstance(content, bytes) else str(content)
        )
        for name, content in files.items()
    ]
    try:
        api.create_repo(repo_id, exist_ok=True, private=private)
        commit = api.create_commit(repo_id, operations, commit_message=message)
    except Exception as error:  # of the hub, of the connection, of the answer: many kinds
        raise ArtifactError(f"{repo_id}: cannot be pushed: {_short(error)}") from error
    return str(commit.commit_url)


def fetch_file(repo_id: str, name: str, *, revision: str | None = None, token: str | None = None) -> Path:
    """A file of a repository, from the hub or its cache on this machine.

    Raises:
        ConfigError: There is no package.
        ArtifactError: It cannot be had.
    """
    hub = _hub()
    try:
        return Path(hub.hf_hub_download(repo_id, name, revision=revision, token=token))
    except Exception as error:  # of the hub, of the connection, of the cache: many kinds
        raise ArtifactError(f"{name} of {repo_id}: cannot be had: {_short(error)}") from error


def card_of(title: str, facts: Mapping[str, object]) -> str:
    """A model card for one perturbation."""
    lines = "".join(f"* {name}: `{value}`\n" for name, value in facts.items() if value is not None)
    return (
        "---\nlibrary_name: upi-xai\n"
        "tags: [explainability, saliency-maps, adversarial-robustness, upi]\n---\n\n"
        f"# {title}\n\nOne fixed pattern that is added to every image, clipped to [0, 1], to change the "
        f'saliency maps of a classifier. `upi.Perturbation.from_hub("{title}")` reads it.\n\n{lines}'
    )


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
