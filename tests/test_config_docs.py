"""docs/config.md is what the code says."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parent.parent


def reference():
    spec = importlib.util.spec_from_file_location(
        "config_reference", ROOT / "docs" / "config_reference.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_up_to_date_and_leaves_no_key_unexplained():
    module = reference()
    text = module.page()
    assert module.PAGE.read_text("utf-8") == text, "run: python docs/config_reference.py"
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 150
    assert [row for row in rows if row.endswith("|  |")] == []


def test_every_key_of_the_main_job_is_there():
    text = reference().page()
    config = importlib.import_module("configs.base").get_config()

    def keys(section, where):
        for name, value in section.items():
            if isinstance(value, dict) and where.count(".") < 2 and "sizes" not in name:
                yield from keys(value, f"{where}{name}.")
            else:
                yield f"{where}{name}"

    values = {k: v for k, v in config.to_dict().items() if isinstance(v, dict)}
    missing = [
        key
        for key in keys(values, "")
        if f"| `{key}`" not in text and not key.startswith(("model.name", "schema.boundaries"))
    ]
    assert missing == []
