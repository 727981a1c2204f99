"""What a sweep is asked for: an audit's settings with several networks, as in ``sweep.toml``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import ConfigDict, Field, PositiveInt, field_validator, model_validator

from upi.audit.settings import AuditSettings, NetworkSettings
from upi.core.naming import nearest


class NamedNetwork(NetworkSettings):
    """One of the classifiers."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$")] | None = Field(
        None, description="Name of its folder and of its lines; by default the end of its model."
    )

    @property
    def called(self) -> str:
        """Its name."""
        plain = "".join(
            c if c.isalnum() or c in "._-" else "-" for c in self.model.rstrip("/").split("/")[-1]
        )
        return self.name or plain.strip(".-")[:60] or "network"


class SweepSettings(AuditSettings):
    """A sweep: every map, norm, radius, method and seed on every network."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="sweep.toml of upi", populate_by_name=True)

    network: list[NamedNetwork] = Field(min_length=1)  # type: ignore[assignment]
    threads: PositiveInt = Field(1, description="Threads of each worker: the last bits may depend on them.")

    @field_validator("network")
    @classmethod
    def _names_apart(cls, networks: list[NamedNetwork]) -> list[NamedNetwork]:
        count = Counter(network.called for network in networks)
        twice = [name for name, number in count.items() if number > 1]
        if twice:
            raise ValueError(f"two networks are called {', '.join(twice)}: give them names")
        return networks

    @model_validator(mode="before")
    @classmethod
    def _one_table(cls, content: Any) -> Any:
        """A single ``[network]`` is a sweep of one; a misspelt ``[[networks]]`` has a sentence of its own."""
        if isinstance(content, dict) and isinstance(content.get("network"), dict):
            return {**content, "network": [content["network"]]}
        if isinstance(content, dict) and "network" not in content:
            for key in content:
                if nearest(str(key), ("network",)):
                    raise ValueError(f"no [[network]]; did you mean it by [[{key}]]?")
        return content

    def audits(self) -> Iterator[tuple[str, AuditSettings]]:
        """The audit of each network, by its name."""
        shared = self.plain()
        del shared["network"], shared["threads"]
        for network in self.network:
            alone = network.model_dump(mode="json")
            del alone["name"]
            yield network.called, AuditSettings.model_validate({**shared, "network": alone})
