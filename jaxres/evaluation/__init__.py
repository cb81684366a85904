"""Evaluation: metrics and checkpoint-based evaluation."""
