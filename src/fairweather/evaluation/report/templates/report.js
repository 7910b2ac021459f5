"use strict";

for (const slider of document.querySelectorAll(".slider")) {
  const range = slider.querySelector("input");
  const move = () => slider.style.setProperty("--x", range.value + "%");
  range.addEventListener("input", move);
  move();
}

function press(buttons, pressed) {
  for (const button of buttons) {
    button.setAttribute("aria-pressed", String(button === pressed));
  }
}

for (const card of document.querySelectorAll(".card")) {
  const images = [...card.querySelectorAll("img[data-view]")];
  let sources = null; // gathered at the first click, before any is replaced
  for (const group of card.querySelectorAll(".views")) {
    const side = group.dataset.side;
    const buttons = [...group.querySelectorAll("button")];
    for (const button of buttons) {
      button.addEventListener("click", () => {
        sources ??= new Map(images.map((image) => [image.dataset.view, image.getAttribute("src")]));
        const shown = card.querySelector(`.slider .${side}`);
        shown.setAttribute("src", sources.get(button.dataset.show));
        shown.alt = button.textContent;
        const label = card.querySelector(side === "before" ? ".left" : ".right");
        label.textContent = button.textContent;
        press(buttons, button);
      });
    }
  }
}

// What is not known comes last, whatever the order.
function compare(one, other, sign) {
  if (Number.isNaN(one) || Number.isNaN(other)) return Number.isNaN(one) - Number.isNaN(other);
  if (typeof one === "number") return one === other ? 0 : sign * (one < other ? -1 : 1);
  return sign * one.localeCompare(other, undefined, { numeric: true });
}

function number(text) {
  return text === "" ? NaN : Number(text);
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const key = (row) => {
        const cell = row.cells[column];
        return cell.dataset.value === undefined ? cell.textContent : number(cell.dataset.value);
      };
      const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
      rows.sort(([one], [other]) => compare(one, other, rising ? 1 : -1));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}

const cards = document.querySelector(".cards");
const orders = [...document.querySelectorAll("[data-order]")];
function arrange(how) {
  const sign = how === "most" ? -1 : 1;
  const key = (card) => (how === "listed" ? Number(card.dataset.index) : number(card.dataset.rank));
  const sorted = [...cards.children].map((card) => [key(card), card]);
  sorted.sort(([one], [other]) => compare(one, other, sign));
  cards.append(...sorted.map(([, card]) => card));
  press(orders, orders.find((button) => button.dataset.order === how));
}
for (const button of orders) {
  button.addEventListener("click", () => arrange(button.dataset.order));
}
arrange(cards.dataset.first);
