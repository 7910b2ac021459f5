"""What the figures of each benchmark depend on, as data: the named metric protocols.

Where published practice differs, a protocol follows one script, names it, and says in `elsewhere`
what others do. Commits are those of November 2026.
"""

from dataclasses import dataclass
from typing import Literal

from fairweather.errors import OptionError

Colour = Literal["rgb", "luma", "luma_float"]
Inference = Literal[
    "ours",
    "whole",
    "square_pad_128",
    "tiles_384_80",
    "tiles_1152_384",
    "tiles_256_200",
    "tiles_384_300",
    "tiles_400_384",
]
ModelInput = Literal["whole image", "middle two thirds at 256 × 256"]
ScoredAt = Literal["own size", "256 × 256"]
SsimWindow = Literal["uniform 7", "Gaussian 11, σ 1.5"]

INFERENCES: dict[str, str] = {
    "ours": "tiles on the network's own grid, merged without a seam",
    "whole": "the whole image at once",
    "square_pad_128": "the image in the middle of a black square whose side is a multiple of 128,"
    " as the official SPAD script",
    "tiles_384_80": "tiles of 384 px with an overlap of 80, averaged with equal weight, as the"
    " official raindrop script",
    "tiles_1152_384": "tiles of 1152 px with an overlap of 384, averaged with equal weight, as the"
    " official haze script",
    "tiles_256_200": "tiles of 256 px with an overlap of 200, averaged with equal weight, as"
    " AST-v2's haze script",
    "tiles_384_300": "tiles of 384 px with an overlap of 300, averaged with equal weight, as"
    " AST-v2's deblurring script",
    "tiles_400_384": "tiles of 400 px with an overlap of 384, averaged with equal weight, as"
    " AST-v2's script for LOL-v2 real",
}


@dataclass(frozen=True)
class SsimVariant:
    """What SSIM does not say by its name; K1 = 0.01 and K2 = 0.03 everywhere.

    Attributes:
        window: the weights of the local means.
        covariance: "population" as Wang et al. (2004), "sample" as scikit-image by default.
        border: "valid" averages where the window lies inside the image, "replicated" everywhere,
            with edge pixels repeated.
        channels: "each" is scored by itself and the three are averaged; "volume" slides the window
            across the channels too, which MATLAB's `ssim` does to an RGB image.
        shrunk: both images are first pooled by round(shorter side / 256).
    """

    window: SsimWindow
    covariance: Literal["sample", "population"]
    border: Literal["valid", "replicated"] = "valid"
    channels: Literal["each", "volume"] = "each"
    shrunk: bool = False


WANG_2004 = SsimVariant("Gaussian 11, σ 1.5", "population")
SCIKIT_IMAGE = SsimVariant("uniform 7", "sample")
MATLAB_RGB = SsimVariant("Gaussian 11, σ 1.5", "population", border="replicated", channels="volume")


@dataclass(frozen=True)
class Source:
    """Where one reads what a protocol states.

    Attributes:
        where: a file in a public repository, or a page.
        says: the fields of `MetricProtocol` that it settles.
    """

    where: str
    says: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class MetricProtocol:
    """Everything that a figure depends on beside the images; `dataclasses.asdict` goes to JSON.

    Attributes:
        name: its key in `PROTOCOLS`.
        title: the benchmark, for people.
        model_input: what the model is given of each pair; see `prepare_image`.
        inference: how the model is usually run for this figure, one of `INFERENCES`.
        rounded: images are rounded to 8 bits first, as if saved and read; otherwise float32.
        scored_at: both images are first resized to this, bicubically and with antialiasing.
        colour: "rgb"; "luma", which is Y of BT.601 (16 to 235) rounded to 8 bits, as MATLAB's
            rgb2ycbcr gives of uint8; "luma_float", the same unrounded.
        data_range: the pixels lie in [0, data_range]: the peak of PSNR, the L of SSIM.
        ssim: the variant of SSIM.
        also: further measures: "rgb", PSNR and SSIM as under `agan`; "lab", errors in CIELAB.
        sources: where all of this is from.
        elsewhere: what others do, and what is not certain.

    Raises:
        OptionError: rounded luma of images that are not rounded, or CIELAB of luma.
    """

    name: str
    title: str
    model_input: ModelInput = "whole image"
    inference: Inference = "ours"
    rounded: bool
    scored_at: ScoredAt = "own size"
    colour: Colour = "rgb"
    data_range: float
    ssim: SsimVariant = WANG_2004
    also: tuple[Literal["rgb", "lab"], ...] = ()
    sources: tuple[Source, ...]
    elsewhere: str

    def __post_init__(self) -> None:
        if self.colour == "luma" and not self.rounded:
            raise OptionError(f"protocol '{self.name}': luma is of rounded images; use luma_float")
        if "lab" in self.also and self.colour != "rgb":
            raise OptionError(f"protocol '{self.name}': errors in CIELAB need the colour rgb")


_SCORES = ("rounded", "scored_at", "colour", "data_range", "ssim")
_FIGURES = (*_SCORES, "also")
_WHOLE = Source(
    "fairweather's choice; the scripts named here differ only in padding", ("inference",)
)

_ALL = (
    MetricProtocol(
        name="plain",
        title="fairweather's own",
        rounded=True,
        data_range=255,
        sources=(
            Source("fairweather's choice: what a viewer of the saved file sees", _FIGURES),
            Source("Wang et al., IEEE TIP 2004, section III.C, for each channel", ("ssim",)),
            Source("fairweather's choice", ("inference", "model_input")),
        ),
        elsewhere="It equals snow100k; figures of other benchmarks are not comparable with it.",
    ),
    MetricProtocol(
        name="spad",
        title="SPA-Data, 1000 test images",
        inference="square_pad_128",
        rounded=True,
        colour="luma",
        data_range=255,
        also=("rgb",),
        sources=(
            Source("GitHub joshyZhou/AST 80dce68, evaluate_PSNR_SSIM.m", _SCORES),
            Source(
                "GitHub joshyZhou/AST 80dce68, test/test_spad.py",
                ("inference", "model_input", "rounded", "also"),
            ),
        ),
        elsewhere="The published figure is luma. The test script prints RGB of the floats before"
        " they are saved, and its SSIM names no data range, which scikit-image of its time took as"
        " 2 for floats: that SSIM is too high. Here rgb_ssim takes 1, as the authors' raindrop and"
        " haze scripts do. Luma that is not rounded, as in Python evaluations after SwinIR's, gives"
        " 0.5 to 1 dB more around 49 dB (measured on noise).",
    ),
    MetricProtocol(
        name="agan",
        title="Raindrop (AGAN), test_a",
        inference="tiles_384_80",
        rounded=False,
        data_range=1,
        ssim=SCIKIT_IMAGE,
        sources=(
            Source(
                "GitHub joshyZhou/AST 80dce68, test/test_raindrop.py",
                ("inference", "model_input", *_FIGURES),
            ),
        ),
        elsewhere="The authors of the data score full-range luma of 8-bit images with scikit-image"
        " (GitHub rui1996/DeRaindrop a52440d, metrics.py), and all-weather papers score luma as"
        " under allweather; neither compares with RGB.",
    ),
    MetricProtocol(
        name="dense_haze",
        title="Dense-Haze, the last 5 of 55 pairs",
        inference="tiles_1152_384",
        rounded=False,
        data_range=1,
        ssim=SCIKIT_IMAGE,
        sources=(
            Source(
                "GitHub joshyZhou/AST 80dce68, test/test_denseHaze.py",
                ("inference", "model_input", *_FIGURES),
            ),
        ),
        elsewhere="Which pairs are the test is custom, not part of the data.",
    ),
    MetricProtocol(
        name="rain13k",
        title="Rain13K: Test100, Rain100H, Rain100L, Test2800, Test1200",
        rounded=True,
        colour="luma",
        data_range=255,
        sources=(
            Source(
                "GitHub swz30/Restormer df36ed3, Deraining/evaluate_PSNR_SSIM.m",
                ("model_input", *_FIGURES),
            ),
            _WHOLE,
        ),
        elsewhere="Python evaluations that follow SwinIR's leave luma unrounded (luma_float), which"
        " gives more: on noise, about 0.05 dB at 37 dB and 0.5 to 1 dB at 49 dB. Restormer's"
        " average over the five sets weighs each set alike.",
    ),
    MetricProtocol(
        name="reside",
        title="RESIDE: SOTS, indoor and outdoor",
        rounded=False,
        data_range=1,
        ssim=SsimVariant("Gaussian 11, σ 1.5", "population", shrunk=True),
        sources=(
            Source("GitHub IDKiro/DehazeFormer 5af7c34, test.py", ("model_input", *_FIGURES)),
            Source("GitHub VainF/pytorch-msssim 0180eae, pytorch_msssim/ssim.py", ("ssim",)),
            _WHOLE,
        ),
        elsewhere="FFA-Net does not shrink, and pads with zeros for SSIM (GitHub zhilin007/FFA-Net"
        " 6651bcf, net/metrics.py); AST-v2's script rounds to 8 bits and does not shrink (GitHub"
        " joshyZhou/ASTv2 62f56aa, Dehaze/evaluate_SOTS.py). PSNR is of RGB in all three, and"
        " SSIM differs.",
    ),
    MetricProtocol(
        name="snow100k",
        title="Snow100K, 2000 test images",
        rounded=True,
        data_range=255,
        sources=(
            Source(
                "GitHub joshyZhou/ASTv2 62f56aa, Desnow/evaluate_desnow.py and utils.py; the same"
                " in joshyZhou/HINT acb5417, by AST's authors",
                ("model_input", *_FIGURES),
            ),
            _WHOLE,
        ),
        elsewhere="AST's own script for snow is not public. WeatherDiffusion and Histoformer score"
        " luma, and mostly the subsets S and L: see allweather.",
    ),
    MetricProtocol(
        name="allweather",
        title="all-weather sets: Snow100K-S and L, Outdoor-Rain, Raindrop",
        rounded=True,
        colour="luma_float",
        data_range=255,
        sources=(
            Source(
                "GitHub IGITUGraz/WeatherDiffusion 5f78729, utils/metrics.py and"
                " calculate_psnr_ssim.py",
                ("model_input", *_FIGURES),
            ),
            _WHOLE,
        ),
        elsewhere="Histoformer's script (GitHub sunshangquan/Histoformer 1f045f0,"
        " Allweather/compute_psnr.py) takes SSIM with a uniform window of 11 and sample covariance,"
        " and the weights of red and blue are swapped, since OpenCV reads BGR.",
    ),
    MetricProtocol(
        name="istd",
        title="ISTD and ISTD+, test",
        rounded=True,
        scored_at="256 × 256",
        data_range=1,
        ssim=MATLAB_RGB,
        also=("lab",),
        sources=(
            Source(
                "GitHub GuoLanqing/ShadowFormer f721581, evaluation/measure_shadow.m; the same in"
                " joshyZhou/ASTv2 62f56aa, Deshadow/measure_shadow.m",
                _FIGURES,
            ),
            Source("GitHub GuoLanqing/ShadowFormer f721581, test.py", ("model_input",)),
            Source(
                "MathWorks' pages on ssim, imresize and makecform; MATLAB Answers 2142916",
                ("ssim", "scored_at", "also"),
            ),
            Source("GitHub cvlab-stonybrook/SID, README, on RMSE being MAE", ("also",)),
            _WHOLE,
        ),
        elsewhere="What papers print as RMSE is lab_mae: the sum of |ΔL|, |Δa| and |Δb|, averaged"
        " over pixels; lab_rmse is the root of the mean squared distance. Regions are averaged"
        " within each image; some papers pool the pixels of all images instead. Older scripts do"
        " not resize (Wang, CVPR 2018; Le, ICCV 2019), and some resize the 8-bit images (Fu, CVPR"
        " 2021), says GitHub nachifur/RDDM, evaluate_ISTD_results.m. AST-v2's copy reads images"
        " that were resized before, perhaps before the model too.",
    ),
    MetricProtocol(
        name="tip2018",
        title="TIP2018 moiré, test",
        model_input="middle two thirds at 256 × 256",
        rounded=True,
        data_range=255,
        ssim=MATLAB_RGB,
        sources=(
            Source("GitHub CVMI-Lab/UHDM fa70a92, utils/metric.py and matlab_ssim.py", _FIGURES),
            Source("GitHub CVMI-Lab/UHDM fa70a92, dataset/load_data.py", ("model_input",)),
            _WHOLE,
        ),
        elsewhere="UHDM's authors say that their code repeats MATLAB's ssim as MopNet used it."
        " scikit-image and PyTorch score each channel by itself, which gives another SSIM.",
    ),
    MetricProtocol(
        name="uhdm",
        title="UHDM moiré, test",
        rounded=False,
        data_range=1,
        sources=(
            Source("GitHub CVMI-Lab/UHDM fa70a92, utils/metric.py and common.py", _FIGURES),
            Source("GitHub CVMI-Lab/UHDM fa70a92, dataset/load_data.py", ("model_input",)),
            _WHOLE,
        ),
        elsewhere="UHDM's table has LPIPS too, which fairweather does not compute; FHDMi is scored"
        " in 8 bits with scikit-image's defaults.",
    ),
    MetricProtocol(
        name="gopro",
        title="GoPro, test",
        inference="tiles_384_300",
        rounded=True,
        data_range=255,
        ssim=MATLAB_RGB,
        sources=(
            Source(
                "GitHub joshyZhou/ASTv2 62f56aa, Motion_Deblurring/evaluation_GoPro.m", _FIGURES
            ),
            Source(
                "GitHub joshyZhou/ASTv2 62f56aa, Motion_Deblurring/test_ASTv2.py",
                ("inference", "model_input"),
            ),
            Source("MathWorks' page on ssim", ("ssim",)),
        ),
        elsewhere="RealBlur is scored after the result has been aligned with the target, which"
        " fairweather does not do.",
    ),
    MetricProtocol(
        name="low_light",
        title="LOL-v2 and SMID, test",
        rounded=False,
        data_range=1,
        sources=(
            Source(
                "GitHub joshyZhou/ASTv2 62f56aa, Enhancement/test_from_dataset_LOLv2_Syn.py and"
                " utils.py",
                ("model_input", *_FIGURES),
            ),
            _WHOLE,
        ),
        elsewhere="Those scripts take SSIM of images rounded to 8 bits; on noise that changes it"
        " by less than 0.0005. Many papers scale each result to the mean brightness of its target"
        " (GT mean), which gives some dB more and is not done here. LOL-v2 real is run as"
        " 'tiles_400_384'.",
    ),
    MetricProtocol(
        name="did_mdn",
        title="DID-MDN, as TensorFlow scores it",
        rounded=False,
        data_range=1,
        sources=(
            Source("tensorflow.org, tf.image.psnr and tf.image.ssim", _FIGURES),
            Source("TensorFlow's image_ops_impl.py, on the biased covariance", ("ssim",)),
            Source("fairweather's choice", ("inference", "model_input")),
        ),
        elsewhere="Test1200 of Rain13K is this test set, and is scored as under rain13k there.",
    ),
)
PROTOCOLS: dict[str, MetricProtocol] = {protocol.name: protocol for protocol in _ALL}
