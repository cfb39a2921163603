"""Arrays by name from the files that weights come in: safetensors, torch's, Keras's HDF5."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from umair_jax.models import weights

# Where training scripts put the network's weights in a checkpoint of theirs.
_STATE_DICTS = ("state_dict", "model_state_dict", "model")


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a file of weights holds.

    Attributes:
        arrays: By the names of the file.
        metadata: Texts by name: those of a safetensors file, the attributes of an HDF5 file.
        dropped: Entries that are no arrays of the network, and why.
    """

    arrays: dict[str, np.ndarray]
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    dropped: dict[str, str] = dataclasses.field(default_factory=dict)


@contextlib.contextmanager
def new_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to fill, which takes its name when all is there; a failure leaves nothing.

    Raises:
        ValueError: There is something of that name.
    """
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"{folder}: got a folder that is there, expected a new one.")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def read(path: str | os.PathLike[str]) -> Contents:
    """Reads a file of weights; its suffix says which kind it is.

    Nothing in the file is ever executed: torch files go through its weights_only reader.

    Raises:
        ValueError: There is no such file, its kind is unknown, the library that reads it is
            missing, or it is broken.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"{path}: got a file of weights named *{path.suffix}, expected one of "
            f"{', '.join(_READERS)}."
        )
    if not path.is_file():
        raise ValueError(f"{path}: got no such file, expected weights to read.")
    return reader(path)


def _safetensors(path: Path) -> Contents:
    return Contents(weights.read(path), weights.read_metadata(path))


def _torch(path: Path) -> Contents:
    torch = _optional("torch", "parity", path, "or save the weights as safetensors")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the archive, zip or pickle readers' own kinds of errors
        raise _broken(path, error) from error
    dropped = {}
    while isinstance(loaded, Mapping):
        inner = next((n for n in _STATE_DICTS if isinstance(loaded.get(n), Mapping)), None)
        if inner is None:
            break
        dropped |= {str(name): f"beside {inner}" for name in loaded if name != inner}
        loaded = loaded[inner]
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{path}: got a {type(loaded).__name__}, expected a dict of tensors.")
    arrays = {}
    for name, value in loaded.items():
        if isinstance(value, torch.Tensor):
            value = value.detach()
            arrays[name] = (value.float() if value.is_floating_point() else value).numpy()
        else:
            dropped[str(name)] = "not a tensor"
    return Contents(arrays, {}, dropped)


def _hdf5(path: Path) -> Contents:
    h5py = _optional("h5py", "keras", path)
    arrays: dict[str, np.ndarray] = {}

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            arrays[name] = np.asarray(node[()])

    try:
        with h5py.File(path, "r") as file:
            # A whole model has its optimiser's arrays beside this group.
            group = file.get("model_weights", file)
            group.visititems(visit)
            attributes = {
                name: value.decode("utf-8") if isinstance(value, bytes) else value
                for name, value in file.attrs.items()
            }
    except (OSError, RuntimeError, KeyError) as error:
        raise _broken(path, error) from error
    return Contents(arrays, {k: v for k, v in attributes.items() if isinstance(v, str)})


def _optional(module: str, extra: str, path: Path, otherwise: str = "") -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        ways = f'pip install -e ".[{extra}]"' + (f", {otherwise}" if otherwise else "")
        raise ValueError(
            f"{path}: got a {path.suffix} file, but {module} is not installed: {ways}."
        ) from error


def _broken(path: Path, error: Exception) -> ValueError:
    return ValueError(f"weights: {str(path)!r} cannot be read: {error}")


_READERS: dict[str, Callable[[Path], Contents]] = {
    ".safetensors": _safetensors,
    **dict.fromkeys((".pth", ".pt", ".bin", ".ckpt", ".tar"), _torch),  # .pth.tar
    **dict.fromkeys((".h5", ".hdf5"), _hdf5),
}
