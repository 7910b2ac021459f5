"""What the Keras models of all architectures share: a functional model that knows its config."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import keras
import numpy as np

from fairweather.keras.layers import precise_dtype
from fairweather.models import Config, make_config


class Network(keras.Model):
    """A network: (B, H, W, 3) RGB in [0, 1] → the same shape, not clipped.

    Channels come last, as Keras users expect, whatever `keras.config.image_data_format()` is.
    Any H and W from 1 up: the image is padded once, at the bottom and right, to a multiple of
    `config.size_multiple`, and the output is cropped. With the same weights the output is that of
    `fairweather.create_model`, whose images are (B, 3, H, W).

    A functional model on every backend: `summary()`, `get_layer`, `compile`, `fit`, `save` and
    `export` work as on any other.

    Args:
        config: the architecture, as fairweather's PyTorch model takes it, or its fields.
        name: name of the model.
        trainable: whether its weights are trained.
        dtype: a dtype policy or its name, as `mixed_bfloat16`; None takes the global one. The
            image, what is added to it, and the softmax are float32 under every policy.
    """

    restore: ClassVar[Callable[..., Any]]  # applies a new network to an image of unknown size

    def __init__(
        self,
        config: Config | Mapping[str, Any],
        *,
        name: str = "ast",
        trainable: bool = True,
        dtype: Any = None,
    ):
        if isinstance(config, Mapping):
            config = make_config(config)
        policy = keras.dtype_policies.get(dtype)
        image = keras.Input(
            (None, None, 3), dtype=precise_dtype(policy.compute_dtype), name="image"
        )
        restored = type(self).restore(image, config, policy=policy)
        super().__init__(inputs=image, outputs=restored, name=name, trainable=trainable)
        self.dtype_policy = policy
        self.config = config

    def zero_output(self) -> None:
        """Makes the predicted residual zero, so that the model returns its input until trained."""
        for variable in self.get_layer("output_conv").variables:
            variable.assign(np.zeros(variable.shape))

    def get_config(self) -> dict[str, Any]:
        return {
            "config": dataclasses.asdict(self.config),
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        return cls(**config)

    def save_own_variables(self, store: Any) -> None:
        # A .weights.h5 alone says too little to build its model; this says all.
        text = json.dumps(dataclasses.asdict(self.config))
        store["config"] = np.frombuffer(text.encode(), dtype=np.uint8)

    def load_own_variables(self, store: Any) -> None:
        """Nothing: all variables are the layers', and whether they fit is for them to say."""
