"""The documentation site: links that hold on the site and in the repository, and what is generated."""

from __future__ import annotations

from docs._generate import included


def test_links_of_the_repository_become_links_of_the_site():
    source = included.ROOT / "docs" / "guides" / "split.md"
    text = (
        "[a](batches.md#b) [`c`](../../CONTRIBUTING.md) [d](../../bench/RESULTS.md#e) [f](http://g) [h](#i)"
    )
    assert included.with_links(text, source, "guides/split.md") == (
        "[a](batches.md#b) [`c`](../contributing.md) [d](../research/results.md#e) [f](http://g) [h](#i)"
    )


def test_a_file_that_is_no_page_is_named_without_a_link_while_there_is_no_address(monkeypatch):
    source, text = included.ROOT / "README.md", "[`code`](stemsplit/options.py) and `[not](a link)`"
    monkeypatch.setattr(included, "PUBLIC_ADDRESS", "")
    assert included.with_links(text, source, "x.md") == "`code` and `[not](a link)`"
    monkeypatch.setattr(included, "PUBLIC_ADDRESS", "https://x.org/s")
    assert included.with_links(text, source, "x.md") == (
        "[`code`](https://x.org/s/blob/main/stemsplit/options.py) and `[not](a link)`"
    )


def test_a_link_that_leads_nowhere_in_the_repository_is_a_warning(caplog):
    included.with_links("```\n[a](code.md)\n```\n[a](nothing.md)", included.ROOT / "README.md", "x.md")
    assert [record.args for record in caplog.records] == [(included.Path("README.md"), "nothing.md")]
