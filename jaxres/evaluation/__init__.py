"""Evaluation: metrics, evaluating and predicting from checkpoints."""
