"use strict";
// Shows a tooltip for the element under the pointer. The page has the same information in drawings and tables.
(() => {
  const tip = document.getElementById("tip");
  const parsed = new WeakMap();

  const at = (svg, event) => {
    const point = new DOMPoint(event.clientX, event.clientY);
    return point.matrixTransform(svg.getScreenCTM().inverse());
  };

  const strokes = (path) => {
    if (!parsed.has(path)) {
      const layers = path.dataset.layers.split(",");
      const found = [...path.getAttribute("d").matchAll(/M([\d.]+) 0h([\d.]+)/g)];
      parsed.set(path, found.map((each, i) => ({ x: +each[1], width: +each[2], layer: layers[i] })));
    }
    return parsed.get(path);
  };

  const ofTimeline = (svg, path, event) => {
    const { x } = at(svg, event);
    const distance = (each) => Math.max(each.x - x, x - each.x - each.width, 0);
    const each = strokes(path).reduce((best, next) => (distance(next) < distance(best) ? next : best));
    const start = (each.x - svg.dataset.left) / svg.dataset.scale;
    const took = each.width / svg.dataset.scale;
    const [layer, part] = each.layer.split("/");
    const where = layer < 0 ? "" : `, layer ${layer}${part > 0 ? `, micro-batch ${part}` : ""}`;
    return `${path.ownerSVGElement.dataset.part} ${path.dataset.rank}: ${path.dataset.name}${where}\nat ${start.toFixed(3)} s, ${(took * 1000).toFixed(1)} ms`;
  };

  const ofMatrix = (svg, event) => {
    const { left, top, cell, names, cells } = JSON.parse(svg.dataset.matrix);
    const { x, y } = at(svg, event);
    const [from, to] = [Math.floor((y - top) / cell), Math.floor((x - left) / cell)];
    return cells[from]?.[to] === undefined ? "" : `${names[from]} to ${names[to]}\n${cells[from][to]}`;
  };

  const text = (event) => {
    const target = event.target;
    const svg = target.closest("svg");
    if (!svg) return "";
    if (svg.dataset.matrix) return ofMatrix(svg, event);
    if (target.dataset.layers) return ofTimeline(svg, target, event);
    return target.closest("[data-tip]")?.dataset.tip ?? "";
  };

  document.addEventListener("pointermove", (event) => {
    const said = text(event);
    tip.hidden = !said;
    if (!said) return;
    tip.textContent = said;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - width - 8)}px`;
    tip.style.top = `${event.clientY + 18 + height > innerHeight ? event.clientY - height - 10 : event.clientY + 18}px`;
  });
})();
