// Reads the value next to the pointer; hides what a name stands for. Points: [x, y, class, text] by panel.
const { names, panels } = JSON.parse(document.getElementById("points").textContent);
const hidden = new Set();
const drawn = [...document.querySelectorAll("figure[data-panel]")];

function nearest(points, x, y) {
  let found = null, least = Infinity;
  for (const point of points) {
    if (hidden.has(point[2])) continue;
    const away = (point[0] - x) ** 2 + (point[1] - y) ** 2;
    if (away < least) [found, least] = [point, away];
  }
  return found;
}

function read(figure, event) {
  const svg = figure.querySelector(":scope > svg"), box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
  const x = (event.clientX - box.left) * view.width / box.width;
  const y = (event.clientY - box.top) * view.height / box.height;
  show(figure, nearest(panels[figure.dataset.panel], x, y));
}

function show(figure, point) {
  figure.querySelector(".seen")?.remove();
  figure.querySelector("output").textContent = point ? `${names[point[2]]}: ${point[3]}` : "";
  if (!point) return;
  const circle = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  for (const [name, value] of Object.entries({ class: "seen", cx: point[0], cy: point[1], r: 6 }))
    circle.setAttribute(name, value);
  figure.querySelector(":scope > svg").append(circle);
}

function toggle(name) {
  hidden.has(name) ? hidden.delete(name) : hidden.add(name);
  for (const mark of document.getElementsByClassName(name)) mark.classList.toggle("hidden", hidden.has(name));
  for (const button of document.querySelectorAll(`button[data-of="${name}"]`))
    button.setAttribute("aria-pressed", !hidden.has(name));
  for (const figure of drawn) show(figure, null);
}

for (const figure of drawn) {
  const svg = figure.querySelector(":scope > svg");
  for (const kind of ["pointermove", "pointerdown"]) svg.addEventListener(kind, event => read(figure, event));
}
for (const button of document.querySelectorAll("button[data-of]"))
  button.addEventListener("click", () => toggle(button.dataset.of));
