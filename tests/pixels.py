"""An extractor of image features that costs nothing."""

import torch


class Pixels(torch.nn.Module):
    """A few pixels as features, for the sake of time."""

    name, dim = "efflite0", 12

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x[:, :, :2, :2].flatten(1).float() / 255

    def logits(self, features):
        return features[:, :4]
