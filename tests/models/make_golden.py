"""Write the golden files: `python -m tests.models.make_golden`, where torch and Keras are.

The weights are not stored: the tests draw the same ones from their names.
"""

import importlib.metadata
import json

from tests.models import drawn, golden
from tests.models.cases import FAMILIES, PACKAGES
from tests.models.references import reference


def main() -> None:
    """A file for each of the families' networks."""
    for case in FAMILIES:
        peer, weights, images = reference(case), drawn.weights(case.net()), case.images()
        record = {
            "made_with": {name: importlib.metadata.version(name) for name in PACKAGES[case.source]},
            **golden.values(peer.logits(weights, images), peer.gradients(weights, images)),
        }
        lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(record[key])}" for key in record)
        golden.path(case).write_text(f"{{\n{lines}\n}}\n")
        print(golden.path(case).name)


if __name__ == "__main__":
    main()
