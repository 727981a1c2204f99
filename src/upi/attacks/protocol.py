"""How attacks are fitted where their options do not say: a protocol is a value, the paper's being one.

Every option of an attack that is ``"auto"`` or None takes its value from here; ``preset`` names one of
``PROTOCOLS`` or is one of your own, and is looked up once, when the attack is made.
"""

from __future__ import annotations

from dataclasses import dataclass

from upi.core.errors import unknown_name
from upi.network.smooth import SURROGATE_BETA


@dataclass(frozen=True)
class Protocol:
    """What a comparison takes for granted.

    Attributes:
        name: In records.
        paper_maps: Maps given by name are taken in the paper's form: of the softmax output.
        correct_only: Fit on correctly classified images only.
        surrogate: Softplus sharpness beta that attacks are fitted on; None for the network itself.
        clip: Fitted and measured images are clipped to [0, 1].
        priced: Attacks may pay for changed predictions; otherwise a study's price is 0.
        row_scale: Length of UPI-PCA's rows, ``"unit"`` or ``"none"``.
        draws: Draws of Z for each gradient row of UPI-PCA.
        several_forms: UPI-PCA tries rows of the softmax score on the network itself as well.
        components: Leading vectors that UPI-PCA compares, of each form.
        components_of_slow_maps: The same for maps of several passes.
        refinements: Passes over rows around UPI-PCA's vector at the most.
    """

    name: str
    paper_maps: bool
    correct_only: bool
    surrogate: float | None
    clip: bool
    priced: bool
    row_scale: str
    draws: int
    several_forms: bool
    components: int
    components_of_slow_maps: int
    refinements: int


PROTOCOL = Protocol(
    name="protocol",
    paper_maps=False,
    correct_only=False,
    surrogate=SURROGATE_BETA,
    clip=True,
    priced=True,
    row_scale="unit",
    draws=2,
    several_forms=True,
    components=20,
    components_of_slow_maps=8,
    refinements=4,
)
#: As published by Ehsani Oskouie and Farnia (ICASSP 2023), as far as it is known.
PAPER = Protocol(
    name="paper",
    paper_maps=True,
    correct_only=True,
    surrogate=None,
    clip=False,
    priced=False,
    row_scale="none",
    draws=1,
    several_forms=False,
    components=1,
    components_of_slow_maps=1,
    refinements=0,
)
PROTOCOLS = {protocol.name: protocol for protocol in (PROTOCOL, PAPER)}


def resolve(preset: str | Protocol) -> Protocol:
    """The protocol of a name, or the protocol itself.

    Raises:
        ConfigError: The name is unknown (the message lists the known ones).
    """
    if isinstance(preset, Protocol):
        return preset
    if preset not in PROTOCOLS:
        raise unknown_name("preset", preset, PROTOCOLS)
    return PROTOCOLS[preset]
