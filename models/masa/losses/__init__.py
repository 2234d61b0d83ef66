"""The losses of MASA, as released and as in the paper; `masa_losses` computes all of them in one call."""

from trackmill.models.masa.losses.total import PAPER, RELEASED, LossSettings, Targets, masa_losses

__all__ = ["PAPER", "RELEASED", "LossSettings", "Targets", "masa_losses"]
