"""The paper's tables and figures for one dataset, stage by stage; see ``upi reproduce``."""

from upi.reproduce.lab import Lab
from upi.reproduce.panel import GROUPS, PANEL, panel_settings
from upi.reproduce.pipeline import run
from upi.reproduce.settings import DATASETS, Settings, settings
from upi.reproduce.stages import Stages

__all__ = [
    "DATASETS",
    "GROUPS",
    "PANEL",
    "Lab",
    "Settings",
    "Stages",
    "panel_settings",
    "run",
    "settings",
]
