"""``upi harden``: a defence, to compare with."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any

import typer

from upi.cli.choices import one_of
from upi.cli.console import console
from upi.cli.expand import Defaults
from upi.cli.groups import DataOptions, DeviceOptions, ModelOptions, RunOptions, WeightOptions
from upi.cli.registry import command
from upi.cli.session import Subject, session
from upi.core.devices import device_of
from upi.core.errors import ConfigError
from upi.models.harden import DEFENCES, Hardening, Trainable, harden as harden_network
from upi.models.hardened import FILE as HARDENED, Hardened, first_words
from upi.models.recipes import augmentation
from upi.models.registry import Request, source_of
from upi.models.trained import FILE, Trained, TrainedSource
from upi.models.training import accuracy
from upi.network.outputs import place_of
from upi.results.folder import parse_json
from upi.results.place import CONFIG

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


def _saved(trained: Trainable, words: Request, about: dict[str, Any], folder: Path) -> Path:
    """The network in a file that every command opens."""
    if isinstance(source_of(words.spec), TrainedSource):
        path = folder / FILE
        Trained(trained.net, str(about["arch"]), about).save(path)
    else:
        path = folder / HARDENED
        Hardened(trained.net, words, about).save(path)
    return path


@command("harden", order=8)
def harden(
    model: ModelOptions,
    weights: WeightOptions,
    data: Annotated[DataOptions, Defaults(n_test=None)],
    device: DeviceOptions,
    run: Annotated[RunOptions, Defaults(out=Path("runs/harden"))],
    defence: Annotated[
        str, typer.Option(help=f"{HELP}.", callback=one_of("defence", DEFENCES))
    ] = "explanation",
    strength: Annotated[float | None, typer.Option(min=0, help="Weight of the penalty.")] = None,
    eps: Annotated[float, typer.Option(help="l2 radius that the network learns to bear.")] = 1.0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 10,
    learning_rate: Annotated[
        float, typer.Option(min=0, help="Of AdamW at the start; it falls along a cosine.")
    ] = Hardening.learning_rate,
) -> None:
    """Fine-tune a network so that its explanations hold still, and report its accuracy.

    Uses the train split, as 'upi train' cut it. Compare with 'upi audit --model runs/harden
    --baseline RUN': the attacks there are fitted on the hardened network. Cut short, the same command goes
    on from the last epoch.
    """
    shift, flip = augmentation(data.data)
    how = Hardening(
        defence, strength, eps, epochs, learning_rate=learning_rate, shift=shift, flip=flip, seed=run.seed
    )
    _require_its_split(Path(model.model), data)
    if data.n_train == 0:
        raise ConfigError("hardening needs images to train on", options=("n_train",))
    if data.n_test is None:
        data = data.model_copy(update={"n_test": 1000})
    with session(run, resumes=True) as job:
        loaded = job.images(data, model.preprocess)
        before = job.subject(model, weights, DeviceOptions(device="cpu"), data, loaded)
        loaded = loaded.labelled(before)
        train, test = loaded.parts["train"], loaded.parts["test"]
        net = Trainable(before.model)
        first = accuracy(net, test)
        progress = job.stage(f"harden: {defence}")
        after = harden_network(
            deepcopy(net),
            train,
            how,
            device=device_of(device.device),
            progress=progress,
            checkpoint=job.folder.state("harden.state"),
        )
        assert isinstance(after, Trainable)
        about = {
            **before.about,
            "test_accuracy": accuracy(after, test),
            "n_test": len(test),
            "defence": {"name": defence, "strength": how.weight, "eps": eps, "epochs": epochs},
        }
        if defence == "softplus":
            about["softplus"] = how.beta
        asked = Request(model.model, mean=weights.mean, std=weights.std, output=place_of(weights.output))
        words = first_words(model.model, asked)
        _saved(after, words, about, job.folder.path)
        job.record(**loaded.facts(), model=Subject(after.classifier(), about).facts())
    if source_of(words.spec).runs_code:
        console.print(f"Open it with --model {words.spec} --weights {run.out / HARDENED}", soft_wrap=True)
    console.print(
        f"Test accuracy {first:.2%} before, [bold]{about['test_accuracy']:.2%}[/] after, on {len(test)} "
        f"images; classifier in {run.out}"
    )
