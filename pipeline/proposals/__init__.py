"""Proposers as a run uses them: resolved once, built on every worker, checkpoints fetched and checked."""
