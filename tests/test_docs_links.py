"""What the pages point to is there: links, headings, files, modules, config keys."""

import functools
import importlib
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "umair_jax").rglob("*.md")),
    *sorted((ROOT / "tests").rglob("*.md")),
]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
README_LINES = 250
LINK = re.compile(r"\[[^][]*\]\(<?([^)\s>]+)>?\)|\b(?:src|href)=\"([^\"]+)\"")
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
# A path that starts like this is one of ours; others are a user's (`runs/base`, `items.csv`).
OURS = re.compile(r"(?:configs|umair_jax|tests|docs|launch|benchmarks)/[\w./-]*\w|\w+\.py(?=\W|$)")
CONFIG = re.compile(r"configs/(\w+)\.py")
OVERRIDE = re.compile(r"--config\.([a-z_]\w*(?:\.\w+)*)=")
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("[!_]*.py"))


@functools.cache
def text_of(page):
    return page.read_text("utf-8")


def prose(text):
    """The text without fenced and indented blocks, in which a bracket is no link."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^ {4}.*$", "", text, flags=re.MULTILINE)


@functools.cache
def headings(page):
    """Anchors as GitHub makes them: lower case, no punctuation, hyphens; -1 for a second one."""
    found = {}
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose(text_of(page)), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        count = found.get(anchor, 0)
        found[anchor] = count + 1
        if count:
            found[f"{anchor}-{count}"] = 1
    return set(found)


def sections(text):
    """From one heading to the next; a `#` that starts a line of code is indented or fenced."""
    return re.split(r"^(?=#{1,6} )", text, flags=re.MULTILINE)


@functools.cache
def keys_of(name):
    """Every key of a config, sections among them; none of a config that the repository lacks."""
    if name not in CONFIGS:
        return set()
    found = set()

    def walk(section, where):
        for key, value in section.items():
            found.add(f"{where}{key}")
            if isinstance(value, dict):
                walk(value, f"{where}{key}.")

    walk(importlib.import_module(f"configs.{name}").get_config().to_dict(), "")
    return found


def test_the_pages_are_found():
    assert {"README.md", "docs/README.md", "umair_jax/pretrained/image_encoder.md"} <= set(NAMES)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    broken = []
    for one, other in LINK.findall(CODE.sub("", prose(text_of(page)))):
        link = one or other
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if ROOT not in target.parents or not target.exists():
            broken.append(f"{link}: there is no {path} in the repository")
        elif anchor and (target.suffix != ".md" or anchor not in headings(target)):
            broken.append(f"{link}: {target.relative_to(ROOT)} has no such heading")
    assert broken == [], f"{page.relative_to(ROOT)}: correct these links"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_that_are_named_are_there(page):
    text = text_of(page)
    named = {path for code in CODE.findall(prose(text)) for path in OURS.findall(code)}
    named |= {f"configs/{name}.py" for name in CONFIG.findall(text)}
    missing = sorted(path for path in named if not there(path))
    assert missing == [], f"{page.relative_to(ROOT)}: names files that the repository lacks"


def there(path):
    return (ROOT / path).exists() if "/" in path else path in scripts()


@functools.cache
def scripts():
    """Names of the Python files; a page that has named the folder may name a file without it."""
    folders = ("configs", "umair_jax", "tests", "docs", "launch", "benchmarks")
    return {path.name for folder in folders for path in (ROOT / folder).rglob("*.py")}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_modules_that_are_called_are_there(page):
    called = set(re.findall(r"python -m ((?:umair_jax|benchmarks)[\w.]*\w)", text_of(page)))
    paths = {name: ROOT / name.replace(".", "/") for name in called}
    missing = sorted(name for name, path in paths.items() if not path.with_suffix(".py").is_file())
    assert missing == [], f"{page.relative_to(ROOT)}: calls modules that the repository lacks"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_config_keys_that_are_set_exist(page):
    """In configs/base.py, or in a config that the same section names."""
    unknown = []
    for section in sections(text_of(page)):
        known = set().union(*map(keys_of, ["base", *CONFIG.findall(section)]))
        unknown += [key for key in OVERRIDE.findall(section) if key not in known]
    assert unknown == [], (
        f"{page.relative_to(ROOT)}: sets keys that neither configs/base.py nor a config named in "
        "the same section has"
    )


# config.md is made from the code, see test_config_docs.py.
WRITTEN = [page for page in PAGES if page.name != "config.md"]


@pytest.mark.parametrize("page", WRITTEN, ids=[page.name for page in WRITTEN])
def test_config_keys_that_are_named_exist(page):
    """`features.split` and the like, in any config: pages say which one in many ways."""
    known = set().union(*map(keys_of, CONFIGS))
    tops = "|".join(sorted({key.partition(".")[0] for key in known if "." in key}))
    key = re.compile(rf"(?:config\.)?((?:{tops})(?:\.[a-z]\w*)+)(?:=.*)?")
    matches = map(key.fullmatch, CODE.findall(prose(text_of(page))))
    named = {match[1] for match in matches if match and not match[1].endswith((".md", ".py"))}
    assert sorted(named - known) == [], f"{page.relative_to(ROOT)}: names keys that no config has"


def test_the_readme_is_short():
    lines = len(text_of(ROOT / "README.md").splitlines())
    assert lines <= README_LINES, f"README.md: {lines} lines; move some to docs/"


def test_the_index_lists_every_page():
    index = text_of(ROOT / "docs" / "README.md")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    missing = sorted(name for name in pages if f"]({name})" not in index)
    assert missing == [], "docs/README.md: add a line for these pages"
