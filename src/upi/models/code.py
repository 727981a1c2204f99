"""Networks from the user's own code: ``package.module:name``, a module or a function that returns one."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import replace
from typing import Any

from torch import nn

from upi.core.errors import ConfigError, ModelError
from upi.models.hardened import described, opened
from upi.models.registry import SOURCES, ModelSource, Request
from upi.network.classifier import Classifier


def _from_code(spec: str) -> nn.Module:
    module_name, _, attribute = spec.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"model {spec}: cannot import it: {error}") from error
    finally:
        sys.path.remove(os.getcwd())
    try:
        net = factory if isinstance(factory, nn.Module) else factory()
    except Exception as error:
        raise ConfigError(f"model {spec}: calling it failed: {type(error).__name__}: {error}") from error
    if not isinstance(net, nn.Module):
        raise ModelError(f"model {spec}: expected a torch.nn.Module, got {type(net).__name__}")
    return net


class CodeSource(ModelSource):
    """Networks from code, which runs with the user's rights: it is the user's own."""

    form = "module:factory"
    runs_code = True

    def accepts(self, spec: str) -> bool:
        return ":" in spec

    def load(self, request: Request) -> tuple[Classifier, dict[str, Any]]:
        net, about = _from_code(request.spec), dict[str, Any]()
        if request.weights is not None:
            net = opened(net, request.weights, request.spec)
            words, about = described(request.weights)
            unsaid = {word: value for word, value in words.items() if getattr(request, word) is None}
            request = replace(request, **unsaid)
        model = Classifier(
            net,
            mean=request.mean,
            std=request.std,
            output=request.output,
            multi_label=request.multi_label or request.label is not None,
            label=request.label,
        )
        return model, {"arch": request.spec, **about}


SOURCES.add("code", "your own code", order=2)(CodeSource())
