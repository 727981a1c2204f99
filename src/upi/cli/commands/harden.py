"""``upi harden``: a defence, to compare with."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Annotated

import typer

from upi.cli.console import console
from upi.cli.expand import Defaults
from upi.cli.groups import DataOptions, DeviceOptions, RunOptions
from upi.cli.registry import command
from upi.cli.session import Subject, session
from upi.core.devices import device_of
from upi.core.errors import ConfigError
from upi.models.classifiers import FILE
from upi.models.harden import DEFENCES, Hardening
from upi.models.harden import harden as harden_network
from upi.models.trained import Trained, load_trained
from upi.models.training import accuracy
from upi.network.classifier import Classifier
from upi.results.folder import CONFIG, parse_json

HELP = "; ".join(f"{name}: {defence.title}" for name, defence in DEFENCES.items())


def _require_its_split(model: Path, data: DataOptions) -> None:
    """Refuse a split that would train on images which 'upi train' held out, where its run says which.

    Raises:
        ConfigError: The images are cut in another way.
    """
    if not (model / CONFIG).is_file():
        return
    before = parse_json(model / CONFIG).get("data") or {}
    then = ((before.get("splits") or {}).get("train"), before.get("seed"))
    if before.get("name") == data.data and then != (data.sizes()["train"], data.split_seed):
        raise ConfigError(
            f"{model} was trained on another split ({then[0]} images, seed {then[1]}); take the same, so "
            "that no image is trained on that an audit reports on",
            options=("n_train", "split_seed"),
        )


@command("harden", order=8)
def harden(
    model: Annotated[Path, typer.Option(help="A run folder of 'upi train' or its file.")],
    data: Annotated[DataOptions, Defaults(n_test=None)],
    device: DeviceOptions,
    run: Annotated[RunOptions, Defaults(out=Path("runs/harden"))],
    defence: Annotated[str, typer.Option(help=f"{HELP}.")] = "explanation",
    strength: Annotated[float | None, typer.Option(min=0, help="Weight of the penalty.")] = None,
    eps: Annotated[float, typer.Option(help="l2 radius that the network learns to bear.")] = 1.0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 10,
) -> None:
    """Fine-tune a network so that its explanations hold still, and report its accuracy.

    Uses the train split, as 'upi train' cut it. Compare with 'upi audit --model runs/harden
    --baseline RUN': the attacks there are fitted on the hardened network.
    """
    how = Hardening(defence, strength, eps, epochs, seed=run.seed)
    file = model / FILE if model.is_dir() else model
    before = load_trained(file)
    _require_its_split(model, data)
    if data.n_train == 0:
        raise ConfigError("hardening needs images to train on", options=("n_train",))
    if data.n_test is None:
        data = data.model_copy(update={"n_test": 1000})
    with session(run) as job:
        loaded = job.images(data)
        train, test = loaded.parts["train"], loaded.parts["test"]
        first = accuracy(before.net, test)
        progress = job.stage(f"harden: {defence}")
        net = harden_network(
            deepcopy(before.net), train, how, device=device_of(device.device), progress=progress
        )
        about = {
            **before.about,
            "test_accuracy": accuracy(net, test),
            "n_test": len(test),
            "defence": {"name": defence, "strength": how.weight, "eps": eps, "epochs": epochs},
        }
        if defence == "softplus":
            about["softplus"] = how.beta
        trained = Trained(net, before.name, about)
        trained.save(job.folder.path / FILE)
        job.record(**loaded.facts(), model=Subject(Classifier(net), about).facts())
    console.print(
        f"Test accuracy {first:.2%} before, [bold]{about['test_accuracy']:.2%}[/] after, on {len(test)} "
        f"images; classifier in {run.out}"
    )
