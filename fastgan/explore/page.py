"""The page: controls of gradio's around the functions of `drawing` and `pictures`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

from fastgan import editing
from fastgan.explore import drawing, pictures
from fastgan.explore.drawing import Choice
from fastgan.explore.explored import Explored

EVERY = 2.0  # seconds from one look at a training's samples to the next
STYLE = """
figure { margin: 0; text-align: center }
figure img { max-width: 100%; margin: 0 auto }
figure img.sharp { width: 384px; image-rendering: pixelated }
figcaption a { margin: 0 .5em; text-decoration: underline }
footer { display: none !important }
"""
_ONE = {"concurrency_limit": 1, "concurrency_id": "generator", "show_progress": "minimal"}  # one worker for all
_STATED = "Drop a picture: PNG, JPEG, WebP, GIF or BMP"


def theme() -> Any:
    """Fonts of the machine: gradio's own come from elsewhere."""
    import gradio as gr

    return gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Errors with a sentence for the user appear on the page; of others only that they happened."""
    import gradio as gr

    try:
        yield
    except (ValueError, ImportError) as error:
        raise gr.Error(str(error), print_exception=False) from error
    except MemoryError as error:
        raise gr.Error("out of memory", print_exception=False) from error


def build(explored: Explored, steps: int = 100) -> Any:
    """The page as gradio.Blocks. steps: of a projection."""
    import gradio as gr

    with gr.Blocks(title=f"fastgan: {explored.name}", analytics_enabled=False) as page:
        gr.Markdown(f"# {_plain(explored.name)}")
        make = {"edit": partial(_edit, steps=steps), "text": _text, "sample": _sample, "wait": _wait}
        make.get(explored.what, _translate)(page, explored)
        if explored.folder is not None:
            _live(page, explored)
    for block in page.blocks.values():
        _fetch_nothing(block)
    return page


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in " -_." else " " for c in name)


def _fetch_nothing(block: Any) -> None:
    """A file's place may be given as an address, which gradio would then fetch."""
    import gradio as gr

    move = block.async_move_resource_to_block_cache

    async def moved(place: Any) -> Any:
        if "://" in str(place):
            raise gr.Error("addresses are not fetched", print_exception=False)
        return await move(place)

    block.async_move_resource_to_block_cache = moved


def _edit(page: Any, explored: Explored, steps: int) -> None:
    import gradio as gr

    editor, directions = explored.editor, explored.directions
    has_styles = editor.space == "w"
    names = editor.recipe.data.get("class_names") or []
    classes = [(str(names[k]) if k < len(names) else str(k), k) for k in range(editor.classes)]
    found = gr.State(None)
    with gr.Row():
        with gr.Column():
            with gr.Row():
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="seed")
                other = gr.Number(1, label="Second seed", precision=0, minimum=0, elem_id="other")
            blend = gr.Slider(0, 1, 0, step=0.02, label="Between the two", elem_id="blend")
            truncation = gr.Slider(0, 1.5, 1, step=0.05, label="Truncation", visible=has_styles)
            label = gr.Dropdown([("the seed's own", -1), *classes], value=-1, label="Class", visible=bool(classes))
            layers = gr.CheckboxGroup(
                [(str(k), k) for k in range(editor.layers)], label="Styles of the second seed", visible=has_styles
            )
            sliders = []
            for k in range(0 if directions is None else len(directions)):
                text = f"Direction {k} ({float(directions.explained[k]):.0%})"
                sliders.append(gr.Slider(-4, 4, 0, step=0.1, label=text, elem_id=f"direction-{k}"))
        with gr.Column():
            shown = gr.HTML(elem_id="shown")
            upload = gr.File(type="binary", file_types=["image"], label=f"{_STATED}, to project it", elem_id="upload")
            with gr.Row():
                stop = gr.Button("Stop")
                back = gr.Button("Back to the seed")
    controls = [seed, other, blend, truncation, label, layers, *sliders]

    def own_class(label):
        return None if label in (None, -1) else label

    def latents(kept, seed, other, blend, truncation, label, layers, *strengths):
        choice = Choice(seed, other, blend, tuple(layers or ()), truncation, own_class(label), strengths)
        return drawing.chosen(editor, choice, directions, kept)

    def show(kept, *values) -> str:
        with told():
            made = latents(kept, *values)
            name = f"seed-{values[0]}" if kept is None else "projected"
            return drawing.picture(editor.images(made)[0], name, editor.recipe.data, made)

    def project(content, seed, label):
        with told():
            if content is None:
                return
            image = pictures.to_project(editor, content)
            labels = editor.labels([drawing.check_seed(seed)], own_class(label))
            for step in editing.project(editor, image, steps, labels=labels, every=max(1, steps // 20)):
                made, note = (
                    editor.images(step.latents)[0],
                    f"step {step.step} of {steps}, {float(step.psnr[0]):.1f} dB",
                )
                yield step.latents, drawing.picture(made, "projected", editor.recipe.data, step.latents, note)

    moves = [control.input for control in controls]
    gr.on([page.load, *moves], show, [found, *controls], shown, api_name="draw", trigger_mode="always_last", **_ONE)
    going = upload.upload(project, [upload, seed, label], [found, shown], api_name="project", **_ONE)
    stop.click(None, cancels=[going])
    back.click(lambda: (None, None), None, [found, upload], cancels=[going]).then(
        show, [found, *controls], shown, **_ONE
    )


def _text(page: Any, explored: Explored) -> None:
    import gradio as gr

    def show(seed, count, temperature) -> str:
        with told():
            return "\n".join(drawing.texts(explored.recipe, explored.networks, seed, count, temperature))

    seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="seed")
    count = gr.Slider(1, drawing.MOST_TEXTS, 8, step=1, label="Sentences")
    with_temperature = hasattr(explored.recipe, "draw_tokens")
    temperature = gr.Slider(0.1, 2, 1, step=0.05, label="Temperature", visible=with_temperature, elem_id="temperature")
    shown = gr.Textbox(label="Samples", lines=12, elem_id="shown", buttons=["copy"])
    _redraw(page, show, [seed, count, temperature], shown)


def _sample(page: Any, explored: Explored) -> None:
    import gradio as gr

    def show(seed) -> str:
        with told():
            return drawing.sampled(explored.recipe, explored.networks, seed)

    _redraw(page, show, [gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="seed")], gr.HTML(elem_id="shown"))


def _redraw(page: Any, show: Any, controls: list[Any], shown: Any) -> None:
    """`show` when the page opens, and whenever a control moves."""
    import gradio as gr

    moves = [control.input for control in controls]
    gr.on([page.load, *moves], show, controls, shown, api_name="draw", trigger_mode="always_last", **_ONE)


def _translate(page: Any, explored: Explored) -> None:
    import gradio as gr

    recipe, networks = explored.recipe, explored.networks
    larger = explored.what == "upscale"

    def show(content, direction) -> str:
        with told():
            if content is None:
                return ""
            if larger:
                return drawing.picture(pictures.enlarged(recipe, networks, content), "enlarged")
            return drawing.picture(pictures.translated(recipe, networks, content, direction), direction)

    ways = [] if larger else list(recipe.generators)
    direction = gr.Radio(ways, value=(ways or [None])[0], label="Direction", visible=len(ways) > 1)
    upload = gr.File(type="binary", file_types=["image"], label=_STATED, elem_id="upload")
    shown = gr.HTML(elem_id="shown")
    gr.on([upload.upload, direction.input], show, [upload, direction], shown, api_name="translate", **_ONE)


def _wait(page: Any, explored: Explored) -> None:
    import gradio as gr

    gr.Markdown(
        "This run has no checkpoint yet: its samples appear below as it draws them. Start again when it has one."
    )


def _live(page: Any, explored: Explored) -> None:
    """The newest samples of a training that may be going on."""
    import gradio as gr

    def look(seen):
        content, name = drawing.newest(explored.folder, explored.medium, seen)
        return (content, name) if name != seen else (gr.skip(), gr.skip())

    with gr.Accordion("Samples of the training", open=explored.what == "wait"):
        shown, seen = gr.HTML(elem_id="live"), gr.State("")
    again = gr.Timer(EVERY)
    gr.on([page.load, again.tick], look, seen, [shown, seen], api_name="look", show_progress="hidden")
