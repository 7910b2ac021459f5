"""The parts of report.html around its pictures: tables, histograms, protocol and versions."""

import html
import math
from importlib.metadata import version

from fairweather.evaluation.inference import INFERENCES
from fairweather.evaluation.protocols import describe_protocol
from fairweather.evaluation.published import PUBLISHED
from fairweather.evaluation.report.extremes import finite_gains
from fairweather.evaluation.report.histogram import as_svg
from fairweather.evaluation.report.rows import Evaluation, Mean, Row, SetResult
from fairweather.evaluation.report.wording import coloured_gain, figure_text, label
from fairweather.evaluation.results import PACKAGES, reasons
from fairweather.evaluation.weights import INPUT

ELSEWHERE = (
    "not known: the images were restored elsewhere and read from files, so that protocols that"
    " score the floats of a model score rounded ones here"
)
ALONE = (
    "There is no clean version of these photographs, so nothing here measures fidelity: a restored"
    " image that is sharper or has more entropy may still be wrong. Blur (0 sharp, 1 blurred; noise"
    " counts as sharp) and entropy of the luma describe an image by itself; change is the mean"
    " absolute difference from the input. Look at the pictures."
)
WORDS = 3  # columns of the table of images that hold no numbers
# What the two ends of the ranking are called: the button and the order of each.
ORDERS = {
    "gain_db": ("least gain first", "most gain first"),
    "psnr_db": ("lowest PSNR first", "highest PSNR first"),
    "change_levels": ("least change first", "most change first"),
}


def page_parts(evaluation: Evaluation) -> dict[str, str]:
    """What stands for each $name in report_page.html."""
    images = sum(len(result.rows) for result in evaluation.sets)
    weights = ", ".join(facts.name for facts in evaluation.weights)
    least, most = ORDERS[evaluation.ranked_by]
    alone = evaluation.protocol is None
    where = f"{count(images, 'image')} of {count(len(evaluation.sets), 'test set')}"
    scored = f", scored under the protocol '{evaluation.protocol.name}'" if not alone else ""  # type: ignore[union-attr]
    photos = count(images, "photograph") + " without a clean version"
    return {
        "title": html.escape(f"fairweather: {weights}" if weights else "fairweather: results"),
        "subtitle": html.escape(photos if alone else where + scored),
        "notes": note_list(evaluation),
        "summary": summary_table(evaluation) + published_list(evaluation) + fault_list(evaluation),
        "table": image_table(evaluation),
        "histograms": histograms(evaluation),
        "least": least,
        "most": most,
        "first_order": "most" if alone else "least",
        "legend": "Change" if alone else "Error",
    }


def count(number: int, word: str) -> str:
    """As in: 1 image, 2 images."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def note_list(evaluation: Evaluation) -> str:
    """What a reader has to know first."""
    notes = ([ALONE] if evaluation.protocol is None else []) + evaluation.notes
    return "".join(f'<p class="warning">{html.escape(note)}</p>' for note in notes)


def summary_table(evaluation: Evaluation) -> str:
    """Means of every set: the input, each of the weights, and what was published."""
    means = [
        (result, column, result.mean(column))
        for result in evaluation.sets
        for column in ([None] if result.has_input else []) + result.columns
    ]
    names = _figure_names([mean for _, _, mean in means])
    heads = "".join(f"<th>{html.escape(label(name))}</th>" for name in names)
    lines = [
        '<div class="scroll"><table class="means"><thead><tr><th>test set</th><th>images</th>'
        f'<th class="word">model</th>{heads}</tr></thead><tbody>'
    ]
    previous = None
    for result, column, mean in means:
        if previous is not None and previous is not result:
            lines += _published_lines(evaluation, previous, names)
        task = f" ({result.about.task})" if result.about.task else ""
        fresh = previous is not result
        lines.append(
            f"<tr{' class=first' if fresh else ''}>"
            f"<td>{html.escape(result.name + task) if fresh else ''}</td>"
            f"<td>{len(result.rows) if fresh else ''}</td>"
            f'<td class="word">{html.escape(column or "input, as it came")}</td>'
            + "".join(f"<td>{_mean_cell(name, mean)}</td>" for name in names)
            + "</tr>"
        )
        previous = result
    if previous is not None:
        lines += _published_lines(evaluation, previous, names)
    return "".join([*lines, "</tbody></table></div>"])


def _figure_names(means: list[Mean]) -> list[str]:
    """PSNR, SSIM and gain first, then what else there is."""
    known = dict.fromkeys(name for mean in means for name in mean.figures)
    first = [name for name in ("psnr_db", "ssim", "gain_db") if name in known]
    return first + [name for name in known if name not in first]


def _mean_cell(name: str, mean: Mean) -> str:
    if name not in mean.figures:
        return ""
    value = mean.figures[name]
    text = coloured_gain(value) if name == "gain_db" else figure_text(name, value)
    if name in mean.counts:
        text += f' <span class="note">of {mean.counts[name]}</span>'
    return text


def _published_lines(evaluation: Evaluation, result: SetResult, names: list[str]) -> list[str]:
    figure = PUBLISHED.get(result.about.benchmark)
    if figure is None or evaluation.protocol is None:
        return []
    whose = html.escape(f"published: {figure.model}")
    whose += ", not comparable" if reasons(evaluation, result) else ""
    values = {"psnr_db": figure.psnr_db, "ssim": figure.ssim}
    cells = "".join(
        f"<td>{figure_text(name, value) if (value := values.get(name)) is not None else ''}</td>"
        for name in names
    )
    return [
        f'<tr class="published"><td></td><td>{figure.images}</td>'
        f'<td class="word">{whose}</td>{cells}</tr>'
    ]


def published_list(evaluation: Evaluation) -> str:
    """Where the published figures are from, and why they may not be compared with ours."""
    items = []
    for result in evaluation.sets:
        figure = PUBLISHED.get(result.about.benchmark)
        if figure is None or evaluation.protocol is None:
            continue
        why = reasons(evaluation, result)
        words = f"not comparable: {'; '.join(why)}" if why else "comparable"
        text = f"{result.name}, published: {figure.model} ({figure.source}); {words}."
        items.append(f"<li>{html.escape(text)}</li>")
    return f'<ul class="note">{"".join(items)}</ul>' if items else ""


def fault_list(evaluation: Evaluation) -> str:
    """What could not be evaluated."""
    if not evaluation.faults:
        return ""
    items = "".join(f"<li>{html.escape(fault)}</li>" for fault in evaluation.faults)
    return f'<h2>Not evaluated</h2><ul class="faults">{items}</ul>'


def image_table(evaluation: Evaluation) -> str:
    """A line for each image and each of the weights."""
    rows = [(result, row) for result in evaluation.sets for row in result.rows]
    before = list(dict.fromkeys(name for _, row in rows for name in row.input or ()))[:2]
    after = list(
        dict.fromkeys(name for _, row in rows for one in row.restored.values() for name in one)
    )
    gain = ["gain_db"] if evaluation.ranked_by == "gain_db" else []
    heads = [
        *("test set", "image", "model", "size"),
        *(f"{INPUT}: {label(name)}" for name in before),
        *(label(name) for name in gain + after),
        "seconds",
    ]
    cells = "".join(
        f"<th{' class=word' if place < WORDS else ''}><button>{html.escape(head)}</button></th>"
        for place, head in enumerate(heads)
    )
    lines = [f'<table class="sortable"><thead><tr>{cells}</tr></thead><tbody>']
    for number, (result, row) in enumerate(rows):
        for column, restored in row.restored.items():
            known = {**restored, "gain_db": row.gain_db(column)}
            figures = [(name, (row.input or {}).get(name, math.nan)) for name in before]
            figures += [(name, known.get(name, math.nan)) for name in gain + after]
            lines.append(_image_line(result, row, column, number=number, figures=figures))
    return "".join([*lines, "</tbody></table>"])


def _image_line(
    result: SetResult, row: Row, column: str, *, number: int, figures: list[tuple[str, float]]
) -> str:
    seconds = row.seconds.get(column, math.nan)
    cells = [
        f'<td class="word">{html.escape(result.name)}</td>',
        f'<td class="word"><a href="#image-{number}">{html.escape(row.name)}</a></td>',
        f'<td class="word">{html.escape(column)}</td>',
        _cell(row.height * row.width, f"{row.height}×{row.width}"),
    ]
    for name, value in figures:
        text = coloured_gain(value) if name == "gain_db" else figure_text(name, value)
        cells.append(_cell(value, text))
    cells.append(_cell(seconds, f"{seconds:.2f}" if math.isfinite(seconds) else "–"))
    return f"<tr>{''.join(cells)}</tr>"


def _cell(value: float, text: str) -> str:
    """With the value as a script reads it: Infinity, or empty where it is not known."""
    shown = "" if math.isnan(value) else f"{value:.6f}"
    shown = f"{'-' * (value < 0)}Infinity" if math.isinf(value) else shown
    return f'<td data-value="{shown}">{text}</td>'


def histograms(evaluation: Evaluation) -> str:
    """How many images of each set gained how much with each of the weights; empty without gains."""
    drawings = []
    for result in evaluation.sets:
        for name in result.columns:
            if gains := finite_gains(result, name):
                title = html.escape(f"{result.name}: {name}")
                drawings.append(f"<figure>{as_svg(gains)}<figcaption>{title}</figcaption></figure>")
    return "".join(["<h2>Gain</h2>", *drawings]) if drawings else ""


def facts_section(evaluation: Evaluation) -> str:
    """How the figures were made: protocol, inference, weights, versions."""
    facts = []
    if evaluation.protocol is not None:
        facts.append(("protocol", describe_protocol(evaluation.protocol)))
    if evaluation.inference is None:
        facts.append(("inference", ELSEWHERE))
    else:
        ensemble = ", averaged over the eight flips and quarter turns" * evaluation.self_ensemble
        words = INFERENCES[evaluation.inference] + ensemble
        facts.append(("inference", f"{evaluation.inference}, on {evaluation.device}: {words}"))
    for weights in evaluation.weights:
        task = f", for {weights.task}" if weights.task else ""
        trained = f", trained on {weights.training_data}" if weights.training_data else ""
        facts.append(
            (
                f"weights {weights.name}",
                f"{weights.file}, {weights.parameters / 1e6:.2f} M parameters{task}{trained},"
                f" SHA-256 {weights.sha256}",
            )
        )
    facts.append(("means", "over the images of a set; of an infinite PSNR (identical images) over"
                  " the others, with their number beside it"))  # fmt: skip
    facts.append(("versions", ", ".join(f"{name} {version(name)}" for name in PACKAGES)))
    items = "".join(f"<dt>{html.escape(a)}</dt><dd>{html.escape(b)}</dd>" for a, b in facts)
    return f"<h2>How the figures were made</h2><dl>{items}</dl>\n"
