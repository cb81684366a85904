"""Images of what a network did: its mistakes, and the maps of where it looked."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int32, Int64, UInt8

from jaxres.data.composed import require_one_class
from jaxres.evaluation.predict import predict_all
from jaxres.evaluation.run import Loaded
from jaxres.explain.preview import planned, rendered
from jaxres.explain.sheet import contact_sheet, enlarged

LEAST_SIDE = 64  # pixels, of an image on a sheet
GAP = 2  # pixels between an image and its maps


class Mistakes(NamedTuple):
    """Misclassified examples of a split, the most confident first."""

    example: Int64[np.ndarray, " m"]  # position in the split
    label: Int32[np.ndarray, " m"]
    predicted: Int32[np.ndarray, " m"]
    probability: Float32[np.ndarray, " m"]  # of the predicted class
    examples: int  # in the split
    class_names: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """A plain dict for each."""
        names = self.class_names
        fields = zip(self.example, self.label, self.predicted, self.probability, strict=True)
        return [
            {
                "example": int(example),
                "label": int(label),
                "class": names[label],
                "predicted": int(predicted),
                "predicted_class": names[predicted],
                "probability": float(probability),
            }
            for example, label, predicted, probability in fields
        ]


def mistakes_of(
    labels: Int32[np.ndarray, " n"],
    rows: Float[np.ndarray, "n classes"],
    class_names: Sequence[str],
) -> Mistakes:
    """The mistakes among class probabilities; of equal confidence the earlier example first."""
    predicted, confidence = rows.argmax(1).astype(np.int32), rows.max(1)
    wrong = np.flatnonzero(predicted != labels)
    order = wrong[np.argsort(-confidence[wrong], kind="stable")]
    return Mistakes(
        example=order,
        label=labels[order],
        predicted=predicted[order],
        probability=confidence[order].astype(np.float32),
        examples=len(labels),
        class_names=tuple(class_names),
    )


def find_mistakes(run: Loaded, *, shown: bool = False) -> Mistakes:
    """A run's mistakes on its images; progress is `shown`.

    Raises:
        InputError: an image may be of several classes, or the weights give probabilities that are
            not finite.
    """
    require_one_class(run.dataset)
    results = predict_all(run, shown=shown)
    return mistakes_of(results["label"], results["probabilities"], run.dataset.class_names)


def mistakes_sheet(
    run: Loaded, mistakes: Mistakes, *, count: int
) -> UInt8[np.ndarray, "sheet_h sheet_w 3"]:
    """The first `count` mistakes, at least one, with their labels and what was predicted."""
    examples = mistakes.example[:count].tolist()
    images = rendered(run.dataset, planned(run.dataset, examples))
    captions = [
        f"{row['class']} as {row['predicted_class']} {row['probability']:.2f}"
        for row in mistakes.rows()[:count]
    ]
    return contact_sheet(enlarged(images, LEAST_SIDE), captions)


def overlaid(
    images: UInt8[np.ndarray, "n h w 3"], maps: Float32[np.ndarray, "n h w"]
) -> UInt8[np.ndarray, "n h w 3"]:
    """Maps as heat over their images: from blue, nothing, to red, the most of each map."""
    most = np.maximum(maps.max((1, 2), keepdims=True), np.finfo(np.float32).tiny)
    level = np.rint(255 * np.clip(maps / most, 0, 1)).astype(np.uint8)
    heat = np.stack([cv2.applyColorMap(one, cv2.COLORMAP_JET)[..., ::-1] for one in level])
    return np.rint(0.5 * images + 0.5 * heat).astype(np.uint8)


def attention_sheet(
    images: UInt8[np.ndarray, "n h w 3"],
    maps: Sequence[Float32[np.ndarray, "n h w"]],
    captions: Sequence[str],
) -> UInt8[np.ndarray, "sheet_h sheet_w 3"]:
    """Each image with its maps to the right, in the order given."""
    shown = [enlarged(part, LEAST_SIDE) for part in (images, *(overlaid(images, m) for m in maps))]
    gap = np.full((*shown[0].shape[:2], GAP, 3), 255, np.uint8)
    strips = [part for one in shown for part in (one, gap)][:-1]
    columns = max(1, round(math.sqrt(len(images) / len(shown))))
    return contact_sheet(np.concatenate(strips, axis=2), captions, columns=columns)
