"""Pages for tests: whether they are well formed, what is on them, a log to draw."""

from html.parser import HTMLParser

import numpy as np

from umair_jax import results

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Elements of a page; closes what is open in the right order, or fails."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.ids, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        assert len(values) == len(attributes), attributes
        self.elements.append((tag, values))
        if "id" in values:
            self.ids.append(values["id"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag, kind=None):
        return [
            values
            for name, values in self.elements
            if name == tag and (kind is None or kind in values.get("class", "").split())
        ]


def alone(page):
    """Fails where a page would load something."""
    for tag, values in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base"), tag
        for name in ("src", "srcset", "href", "xlink:href", "poster", "data", "action"):
            assert values.get(name, "#").startswith(("#", "data:image/")), (tag, values)
        assert not [name for name in values if name.startswith("on")]
        assert "url(" not in values.get("style", "")


def made_up_lines(names, last=30):
    """A made-up metrics.jsonl: six reports and two evaluations."""
    rng = np.random.default_rng(0)
    for step in range(5, last + 1, 5):
        yield {"step": step, "kind": "train", "loss": 1 / step, "grad_norm": rng.random()}
        if step % 15 == 0:
            values = {
                f"{name}{end}": 0.5 + 0.01 * k + shift
                for k, name in enumerate(results.SHOWN)
                for end, shift in (("", 0.0), ("_low", -0.1), ("_high", 0.1))
            }
            weights = {f"weight_{name}": float(rng.random()) for name in names}
            yield {"step": step, "kind": "valid", **values, **weights}
    yield {"step": last, "kind": "final/test", "auc": 0.7}
