// Samples: a slider over the steps, and beside it, on request, a second one.
"use strict";
(() => {
  const first = document.querySelector(".pane");
  if (!first) return;
  const newest = { step: Number(first.dataset.step), content: first.querySelector(".shown").cloneNode(true) };
  const samples = [...document.querySelectorAll("template.earlier")].map(
    (template) => ({ step: Number(template.dataset.step), content: template.content }));
  samples.push(newest);

  // Pixels stay sharp where a picture is enlarged; one that is reduced is blended.
  const sharpen = (image) => image.classList.toggle("large", image.clientWidth > image.naturalWidth);

  function Pane(element) {
    const slider = element.querySelector("input"), output = element.querySelector("output");
    const place = element.querySelector(".shown");
    const pane = {
      element, index: -1,
      show(index) {
        if (index === pane.index) return;
        pane.index = index;
        slider.value = index;
        output.textContent = samples[index].step.toLocaleString("en");
        const content = samples[index].content.cloneNode(true);
        place.replaceChildren(...(content.matches?.(".shown") ? content.childNodes : [content]));
        const images = place.querySelectorAll("img");
        for (const image of images) {
          image.decode().catch(() => {}).then(() => {
            if (images.length === 1) image.closest("figure")?.style.setProperty("--shape", image.naturalWidth / image.naturalHeight);
            sharpen(image);
          });
          sizes.observe(image);
        }
        if (pane === last) document.dispatchEvent(new CustomEvent("samples", { detail: samples[index].step }));
      },
    };
    slider.hidden = samples.length < 2;
    slider.addEventListener("input", () => { stop(); pane.show(Number(slider.value)); });
    return pane;
  }
  const sizes = new ResizeObserver((entries) => entries.forEach((entry) => sharpen(entry.target)));

  let timer = 0;
  const play = document.getElementById("play");
  function stop() {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  }
  play.addEventListener("click", () => {
    if (timer) return stop();
    play.textContent = "Pause";
    play.setAttribute("aria-pressed", "true");
    if (last.index === samples.length - 1) last.show(0);
    timer = setInterval(() => {
      last.show(last.index + 1);
      if (last.index === samples.length - 1) stop();
    }, 350);
  });

  const second = first.cloneNode(true);
  const last = Pane(first), earlier = Pane(second);
  const compare = document.getElementById("compare");
  function arrange() {
    const two = compare.checked && samples.length > 1;
    document.querySelector("main").classList.toggle("wide", two);
    if (!two) return second.remove();
    first.before(second);
    earlier.show(Math.max(earlier.index, 0));
  }
  compare.addEventListener("change", arrange);
  play.hidden = compare.parentNode.hidden = samples.length < 2;
  last.show(samples.length - 1);
  arrange();

  // Of texts: the sentence of the same seed in both panes.
  const panes = document.querySelector(".panes");
  panes.addEventListener("pointerover", (event) => {
    for (const item of panes.querySelectorAll("li.same")) item.classList.remove("same");
    const item = event.target.closest("li");
    if (!item) return;
    const place = [...item.parentNode.children].indexOf(item) + 1;
    for (const other of panes.querySelectorAll(`li:nth-child(${place})`)) other.classList.add("same");
  });

  // A click on a curve: the nearest step that has samples.
  document.addEventListener("pick", ({ detail: step }) => {
    stop();
    const away = samples.map((sample) => Math.abs(sample.step - step));
    last.show(away.indexOf(Math.min(...away)));
  });

  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
})();
