from jaxres.runtime.errors import InputError, sentence


def test_a_sentence_is_one_printable_line() -> None:
    said = sentence(InputError("no file 'a\nb\0c\udcff\u202ed'\n  here"))
    assert said == r"no file 'a b\x00c\udcff\u202ed' here"
    assert sentence(InputError("déjà vu")) == "déjà vu"


def test_a_sentence_has_an_end() -> None:
    said = sentence(InputError("no file '" + "x" * 100_000 + "'; allowed: another"))
    assert len(said) < 2100
    assert said.startswith("no file 'xxx")
    assert said.endswith("'; allowed: another")
