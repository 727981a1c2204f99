"""The paper's tables and figures for one dataset, stage by stage; see ``upi reproduce``."""

from upi.experiments.reproduce.lab import Lab
from upi.experiments.reproduce.panel import GROUPS, PANEL, panel_settings
from upi.experiments.reproduce.pipeline import run
from upi.experiments.reproduce.settings import DATASETS, Settings, settings
from upi.experiments.stages import StageStore

__all__ = [
    "DATASETS",
    "GROUPS",
    "PANEL",
    "Lab",
    "Settings",
    "StageStore",
    "panel_settings",
    "run",
    "settings",
]
