"""Generators of others and for others: a folder of known files, and that folder on huggingface.co.

    sharing.write("runs/dcgan-emoji", "emoji-dcgan", license="apache-2.0")   # model, config.json, card, sample grid
    sharing.push("emoji-dcgan", "me/emoji-dcgan")                            # uploads these files, and no others
    recipe, networks = sharing.load("me/emoji-dcgan")                        # or a folder; as fastgan.recipes.load_run

Of what is pulled nothing is executed: `FILES` alone are taken, within their sizes, and the model must have the size and SHA-256
that config.json says and the hub knows.
"""

from fastgan.sharing.folder import FILES, check, write
from fastgan.sharing.hub import is_repository, load, pull, push

__all__ = ["FILES", "check", "is_repository", "load", "pull", "push", "write"]
