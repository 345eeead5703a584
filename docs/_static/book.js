// Code folded by choice: a button at each cell, one for all; the latter is remembered from page to page.
document.addEventListener("DOMContentLoaded", () => {
  const inputs = [...document.querySelectorAll(".cell > .cell_input")];
  if (!inputs.length) return;
  const button = (place, id) => {
    const made = document.createElement("button");
    made.className = "fold";
    if (id) made.id = id;
    place.prepend(made);
    return made;
  };
  const show = (made, input, folded) => {
    input.classList.toggle("folded", folded);
    made.textContent = folded ? "▸ show code" : "▾ hide code";
    made.setAttribute("aria-expanded", String(!folded));
  };
  const cells = inputs.map((input) => [button(input), input]);
  cells.forEach(([made, input]) => made.addEventListener("click", () => show(made, input, !input.classList.contains("folded"))));
  const all = button(document.querySelector(".bd-article section") ?? document.querySelector(".bd-article"), "fold-all");
  let kept = null;
  try { kept = localStorage.getItem("fold"); } catch { /* no storage: nothing is remembered */ }
  let folded = kept === "1";
  const showAll = () => {
    cells.forEach(([made, input]) => show(made, input, folded));
    all.textContent = folded ? "Show all code" : "Hide all code";
  };
  all.addEventListener("click", () => {
    folded = !folded;
    try { localStorage.setItem("fold", folded ? "1" : "0"); } catch { /* as above */ }
    showAll();
  });
  showAll();
});
