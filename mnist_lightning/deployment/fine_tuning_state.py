"""What the page shows about a fine-tuning: its state, and the network before and after."""

from typing import Literal

from pydantic import BaseModel


class OwnDigit(BaseModel):
    """A corrected digit: its true label, and the labels read; -1 for "not a digit"."""

    label: int
    before: int
    after: int
    image: str


class Counts(BaseModel):
    """How many images are read correctly, before and after; how many only before, only after."""

    total: int
    before: int
    after: int
    forgotten: int
    learned: int


class OwnDigits(Counts):
    """The corrected digits; the first ones are listed."""

    shown: list[OwnDigit]


class HeldOut(Counts):
    """Images on which neither network was trained.

    If `are_new` is false, the network may have been trained on them before fine-tuning. The last
    two count the images that are read as "probably not a digit".
    """

    dataset: str
    are_new: bool
    rejected_before: int
    rejected_after: int


class Comparison(BaseModel):
    """The network before and after fine-tuning."""

    own: OwnDigits
    held_out: HeldOut
    summary: str
    notes: list[str]


class FineTuningState(BaseModel):
    """The state of the last fine-tuning."""

    state: Literal["idle", "running", "finished", "failed", "cancelled"] = "idle"
    stage: Literal["starting", "training", "comparing"] = "starting"
    epoch: int = 0  # completed epochs
    epochs: int = 0
    base: str | None = None  # the run before fine-tuning
    run: str | None = None  # the run after fine-tuning
    message: str | None = None
    notes: list[str] = []
    comparison: Comparison | None = None
