"""Texts in files: a line is a seed's."""

from fastgan.media import Text


def test_a_line_is_one_sample_whatever_it_holds(tmp_path):
    """A tokenizer of bytes knows ends of lines, and draws them too before it has learnt better."""
    texts = ["one\ntwo", "three\r\nfour", "a\rb", "un\u2028broken\x0c", "", "last"]
    path = Text.save(texts, tmp_path / "step-00000000")
    assert Text.read(path) == ["one two", "three four", "a b", "un\u2028broken\x0c", "", "last"]
    assert Text.html(path).count("<li>") == len(texts)
