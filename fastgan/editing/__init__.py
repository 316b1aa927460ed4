"""What is done with a trained generator: latents of it as values, found for pictures, moved along directions.

    editor = editing.load("runs/stylegan2-emoji")                # a run, a checkpoint in it, or what `fastgan convert` wrote
    latents = editor.latents(range(8), truncation=0.7)           # Latents: the styles w, or z where there is no mapping network
    images = editor.images(latents)                              # float [8, C, H, W] in [-1, 1]

    found = editing.find_directions(editor, "pca", count=10)     # Directions
    images = editor.images(found.moved(latents, 0, 2.0))         # two deviations along the first one

    for step in editing.project(editor, photographs, steps=300): # Progress: a distance for each picture, so far
        ...
    step.latents.save("found.safetensors")

A picture of latents is the same wherever they are drawn: a StyleGAN2's noise is its one fixed pattern, or what lies beside the
latents.
"""

from fastgan.editing.directions import Directions, find_directions, strip
from fastgan.editing.editor import Editor, load
from fastgan.editing.latents import Latents
from fastgan.editing.projection import Progress, Projector, project

__all__ = [
    "Directions",
    "Editor",
    "Latents",
    "Progress",
    "Projector",
    "find_directions",
    "load",
    "project",
    "strip",
]
