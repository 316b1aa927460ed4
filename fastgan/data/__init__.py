"""Data sets and loaders: embedded emoji, Fashion-MNIST, image folders, zips, npz and npy files, image pairs.

Pillow is imported only when an image is decoded or resized, so ``import fastgan.data`` needs torch and numpy alone.
"""

from fastgan.data.archive import save_npz
from fastgan.data.catalog import load, names, prepare
from fastgan.data.dataset import ImageDataset
from fastgan.data.loader import Loader
from fastgan.data.pairs import PairDataset, load_pair
from fastgan.data.pixels import to_float, to_uint8, to_uint16
from fastgan.data.registered import DATA
from fastgan.data.signal import SignalDataset, load_signals
from fastgan.data.speech import Recordings, load_recordings

register = DATA.register

__all__ = [
    "DATA",
    "ImageDataset",
    "Loader",
    "PairDataset",
    "Recordings",
    "SignalDataset",
    "load",
    "load_pair",
    "load_recordings",
    "load_signals",
    "names",
    "prepare",
    "register",
    "save_npz",
    "to_float",
    "to_uint8",
    "to_uint16",
]
