"""AST for Keras 3: the same network, weights and outputs on TensorFlow, JAX and PyTorch.

Needs the extra `keras`. The backend is Keras' own choice (`KERAS_BACKEND`); images are
(B, H, W, 3), RGB in [0, 1].
"""

from fairweather.errors import MissingExtraError, installing

try:
    from fairweather.keras.convert import from_torch, load_model, save_model, to_torch
    from fairweather.keras.data import HeldOutImages, TrainingBatches, load_data, to_tf_data
    from fairweather.keras.export import export_litert, export_saved_model
    from fairweather.keras.fit import refuse_impossible, train
    from fairweather.keras.losses import Charbonnier, WeightedLoss
    from fairweather.keras.metrics import PSNR, SSIM
    from fairweather.keras.model import AST, create_model
    from fairweather.keras.model_v2 import ASTv2
    from fairweather.keras.network import Network
    from fairweather.keras.optimization import CosineWithWarmup, build_optimizer
except ModuleNotFoundError as missing:
    if missing.name is None or missing.name.startswith("fairweather"):
        raise
    raise MissingExtraError(
        f"fairweather.keras needs Keras 3 and TensorFlow (or the backend that KERAS_BACKEND names),"
        f" and {missing.name} is missing; install them with: {installing('keras')}"
    ) from missing

__all__ = [
    "AST",
    "PSNR",
    "SSIM",
    "ASTv2",
    "Charbonnier",
    "CosineWithWarmup",
    "HeldOutImages",
    "Network",
    "TrainingBatches",
    "WeightedLoss",
    "build_optimizer",
    "create_model",
    "export_litert",
    "export_saved_model",
    "from_torch",
    "load_data",
    "load_model",
    "refuse_impossible",
    "save_model",
    "to_tf_data",
    "to_torch",
    "train",
]
