"""A protocol in words."""

from fairweather.evaluation.protocols import INFERENCES, Colour, MetricProtocol, Source

_COLOURS: dict[Colour, str] = {
    "rgb": "the RGB channels together",
    "luma": "the luma (Y of BT.601, rounded to 8 bits as in MATLAB)",
    "luma_float": "the luma (Y of BT.601, not rounded)",
}
_ALSO = {
    "rgb": "PSNR and SSIM of RGB under the protocol agan",
    "lab": "the mean absolute error (papers call it RMSE) and the root mean squared error in"
    " CIELAB, and with a mask all measures inside and outside of the shadow",
}


def describe_protocol(protocol: MetricProtocol) -> str:
    """Describe in a paragraph what is done to the images and what is computed."""
    rounding = "rounded to 8 bits" if protocol.rounded else "not rounded"
    scored_at = f", resized to {protocol.scored_at}" if protocol.scored_at != "own size" else ""
    ssim = protocol.ssim
    shrunk = ", pooled to about 256 px a side" if ssim.shrunk else ""
    volume = "across the channels" if ssim.channels == "volume" else "channel by channel"
    channels = f", {volume}" if protocol.colour == "rgb" else ""
    border = "inside the border" if ssim.border == "valid" else "with the border replicated"
    also = f" Also: {'; '.join(_ALSO[more] for more in protocol.also)}." if protocol.also else ""
    return (
        f"Protocol {protocol.name} ({protocol.title}). The model is usually given the"
        f" {protocol.model_input} and run as '{protocol.inference}',"
        f" {INFERENCES[protocol.inference]}. Both images are {rounding}"
        f"{scored_at}; PSNR and SSIM are of {_COLOURS[protocol.colour]}, for a data range of"
        f" {protocol.data_range:g}. SSIM has the window {ssim.window} and {ssim.covariance}"
        f" covariance, taken {border}{channels}{shrunk}.{also} {protocol.elsewhere}"
        f" Sources: {'; '.join(_describe_source(source) for source in protocol.sources)}."
    )


def _describe_source(source: Source) -> str:
    return f"{source.where} ({', '.join(source.says).replace('_', ' ')})"
