"""JaxRes from Python: train, open what was trained, and use it.

`import jaxres` gives these names as `jaxres.train`, `jaxres.load` and so on, and imports JAX only
when one of them is used.
"""

from jaxres.api.classifier import Classifier, Prediction, load
from jaxres.api.networks import create_model, list_models
from jaxres.api.runs import TrainedRun, open_run, train
from jaxres.config import Config
from jaxres.data.datasets.registry import register_dataset
from jaxres.evaluation.metrics import register_metric
from jaxres.models.registry import register_model
from jaxres.runtime.errors import InputError, Interrupted, TrainingFailed
from jaxres.training.losses import register_loss
from jaxres.training.optim import register_optimizer

__all__ = [
    "Classifier",
    "Config",
    "InputError",
    "Interrupted",
    "Prediction",
    "TrainedRun",
    "TrainingFailed",
    "create_model",
    "list_models",
    "load",
    "open_run",
    "register_dataset",
    "register_loss",
    "register_metric",
    "register_model",
    "register_optimizer",
    "train",
]
