"""Losses that MASA is trained with, as released and as in the paper; `masa_losses` is all of them in one call."""

from trackmill.models.masa.losses.total import PAPER, RELEASED, LossSettings, Targets, masa_losses

__all__ = ["PAPER", "RELEASED", "LossSettings", "Targets", "masa_losses"]
