"""What each part of UMAIR-FPS is worth: one table for each group of configs/ablations.py.

    python -m umair_jax.sweep --config=configs/ablation_table.py:umcm --workdir=runs/umcm
    python -m umair_jax.sweep --config=configs/ablation_table.py:modalities,on=movielens:cold_item

The argument is a group: modalities, umcm, cross, parts or styles. Without one, the table has all of
them, but of the subsets of modalities those that lack one. `on` names the config that is changed.
A variant that the config is already stands in the label of its first row, and has none of its own.
"""

import importlib

from ml_collections import ConfigDict

from configs import ablations
from configs.paper_table import row


def get_config(arg: str = "") -> ConfigDict:
    """The rows of a group, the unchanged config first."""
    group, _, on = arg.partition(",on=")
    on = on or "base"
    if group and group not in ablations.GROUPS:
        raise ValueError(
            f"configs/ablation_table.py: got the argument {arg!r}; expected one of "
            f"{', '.join(ablations.GROUPS)}, and ,on=CONFIG"
        )
    names = ablations.GROUPS[group] if group else (*ablations.NAMES,)
    if not group:
        names = tuple(name for name in names if name not in ablations.SUBSETS)
    module, _, inner = on.partition(":")
    file = f"configs/{module}.py{inner and ':' + inner}"
    config = ConfigDict()
    config.title = f"UMAIR-FPS with one thing changed, {file}"
    config.rows = ConfigDict(sort_keys=False)
    config.rows.as_it_is = row(file, "as it is", "")
    unchanged, same = importlib.import_module(f"configs.{module}").get_config(inner), []
    for name in names:
        label = name.removeprefix(ablations.ALL).replace("_", " ").replace("+", " + ")
        if ablations.get_config(f"{name},on={on}") == unchanged:
            same.append(label)
            continue
        key = name.replace("=", "_").replace("+", "_")
        config.rows[key] = row(f"configs/ablations.py:{name},on={on}", label, "")
    if same:
        config.rows.as_it_is.label += f" ({', '.join(same)})"
    config.reference = "as_it_is"
    config.seeds = (0, 1, 2)
    config.overrides = ConfigDict()
    config.draws = 1000
    config.search = ConfigDict({"trials": 0, "seed": 0, "space": ConfigDict(), "winners": ""})
    return config.lock()
