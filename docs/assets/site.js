// Turns each <div class="compare"> with two pictures into one with a slider between them.
// Without JavaScript both pictures are shown.
for (const figure of document.querySelectorAll(".compare")) {
  const [before, after] = figure.querySelectorAll("img");
  if (!after) continue;
  const stage = document.createElement("div");
  const slider = document.createElement("input");
  stage.className = "compare-stage";
  Object.assign(slider, { type: "range", min: 0, max: 100, value: 50 });
  slider.setAttribute("aria-label", `From “${before.alt}” to “${after.alt}”`);
  const move = () => {
    stage.style.setProperty("--at", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", `${slider.value} % ${before.alt}`);
  };
  slider.addEventListener("input", move);
  after.classList.add("compare-after");
  stage.append(before, after, slider);
  figure.prepend(stage);
  for (const rest of figure.querySelectorAll("p")) if (!rest.textContent.trim()) rest.remove();
  move();
}

// Wide tables scroll sideways on a phone; the keyboard has to reach them for that.
addEventListener("load", () => {
  for (const table of document.querySelectorAll(".md-typeset__scrollwrap")) table.tabIndex = 0;
});
