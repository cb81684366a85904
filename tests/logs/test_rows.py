import json
import os
import pathlib

import pytest

from jaxres.logs.rows import keep_rows
from jaxres.runtime.errors import InputError


def test_lines_that_are_no_rows_are_dropped(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metrics.jsonl"
    row = json.dumps({"step": 1, "split": "train"})
    others = ("9" * 5000, "[" * 200_000, '{"split": "train"}', '{"step": "1"}', '{"step": null}')
    path.write_text("\n".join([*others, row, '{"step": true}', '{"step": 1.5}']))
    keep_rows(path, 2)
    assert path.read_text() == row + "\n"


def test_a_pipe_is_not_waited_for(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(InputError, match=r"metrics.jsonl' is not a regular file"):
        keep_rows(tmp_path / "metrics.jsonl", 2)
