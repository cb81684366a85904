"""What a summary says of the checkout that a run was made with."""

import pathlib
import subprocess

import pytest

from jaxres.logs import summary


@pytest.fixture
def checkout(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A source checkout with a commit, as which JaxRes finds itself."""
    source = tmp_path / "jaxres" / "training" / "summary.py"
    for path in (source, tmp_path / "results" / "s1" / "mini.json"):
        path.parent.mkdir(parents=True)
        path.write_text("first")
    commit = ["-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-q", "-m", "first"]
    for words in (["init", "-q"], ["add", "."], commit):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    monkeypatch.setattr(summary, "__file__", str(source))
    return tmp_path


def test_results_are_no_change_of_the_checkout(checkout: pathlib.Path) -> None:
    commit = summary._commit()
    assert commit is not None
    assert len(commit) == 40
    (checkout / "results" / "s1" / "mini.json").write_text("second")
    (checkout / "runs").mkdir()
    (checkout / "runs" / "log").write_text("untracked")
    assert summary._commit() == commit
    (checkout / "jaxres" / "training" / "summary.py").write_text("second")
    assert summary._commit() == f"{commit}-dirty"


def test_a_folder_without_commits_has_none(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "__file__", str(tmp_path / "a" / "b" / "summary.py"))
    assert summary._commit() is None
    (tmp_path / ".git").mkdir()
    assert summary._commit() is None
