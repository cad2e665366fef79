"use strict";
(() => {
  const data = (id) => {
    const found = document.getElementById(id);
    return found ? JSON.parse(found.textContent) : null;
  };

  // A layer that is jumped to opens.
  const open = () => {
    const target = /^#layer-\d+$/.test(location.hash) && document.getElementById(location.hash.slice(1));
    if (target) {
      target.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", open);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    const hash = link && (link.getAttribute("href") || "");
    if (hash && hash === location.hash) setTimeout(open);
  });
  open();
  addEventListener("beforeprint", () => {
    for (const link of document.querySelectorAll(".worst a")) {
      document.getElementById(link.getAttribute("href").slice(1)).open = true;
    }
  });

  // The table: sorted by a click on a heading, filtered as one types.
  const form = document.getElementById("filters");
  const body = document.querySelector("#rows tbody");
  const rows = [...body.rows];
  const figures = data("figure-data");
  const count = document.getElementById("count");
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  const filter = () => {
    const field = (name) => form.elements[name].value;
    const text = field("text").toLowerCase();
    const least = field("least") === "" ? null : Number(field("least"));
    const values = figures[field("figure")] ? figures[field("figure")].values : [];
    let shown = 0;
    for (const row of rows) {
      const value = values[Number(row.dataset.index)];
      const name = row.cells[0].querySelector("a").title.toLowerCase();
      row.hidden =
        !name.includes(text) ||
        ["verdict", "cause", "op"].some((key) => field(key) && row.dataset[key] !== field(key)) ||
        (least !== null && !(value !== null && value !== undefined && value >= least));
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${rows.length} layers`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  filter();

  const order = ["unreadable", "bad", "warn", "ok"];
  const key = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    const text = cell.textContent.trim();
    return order.includes(text) ? order.indexOf(text) : text === "-" ? null : text.toLowerCase();
  };
  for (const button of document.querySelectorAll("#rows thead button")) {
    button.addEventListener("click", () => {
      const column = Number(button.dataset.column);
      const numbers = rows.some((row) => row.cells[column].dataset.v !== undefined);
      const before = button.getAttribute("aria-sort");
      const down = before ? before === "ascending" : numbers;
      for (const other of document.querySelectorAll("#rows thead button")) {
        other.removeAttribute("aria-sort");
      }
      button.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = rows.map((row) => [key(row, column), row]);
      keyed.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        const sign = a < b ? -1 : a > b ? 1 : 0;
        return down ? -sign : sign;
      });
      body.append(...keyed.map(([, row]) => row));
    });
  }

  // The graph, laid out when it is opened: that of a large model takes a while.
  const graph = data("graph-data");
  const map = document.querySelector(".map");
  const SVG = "http://www.w3.org/2000/svg";
  const make = (parent, tag, attributes, text) => {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    return parent.appendChild(made);
  };
  const draw = () => {
    const laid = new dagre.graphlib.Graph();
    laid.setGraph({ rankdir: "LR", nodesep: 14, ranksep: 30, marginx: 12, marginy: 12 });
    laid.setDefaultEdgeLabel(() => ({}));
    const height = 58;
    for (const node of graph.nodes) {
      const width = Math.max(node.name.length * 6.2, node.op.length * 8.4, 90) + 16;
      laid.setNode(String(node.id), { width, height });
    }
    for (const [from, to] of graph.edges) laid.setEdge(String(from), String(to));
    dagre.layout(laid);
    const size = laid.graph();
    const svg = make(document.getElementById("map"), "svg", { width: size.width, height: size.height });
    for (const edge of laid.edges()) {
      const points = laid.edge(edge).points;
      make(svg, "path", { class: "edge", d: "M" + points.map((p) => `${p.x} ${p.y}`).join("L") });
    }
    for (const node of graph.nodes) {
      const at = laid.node(String(node.id));
      const link = make(svg, "a", { href: `#layer-${node.id}`, class: `node t${node.level}` });
      make(link, "title", {}, `${node.full}${node.times ? `: ${node.times} expected` : ""}`);
      const place = { x: at.x - at.width / 2, y: at.y - at.height / 2 };
      make(link, "rect", { ...place, width: at.width, height: at.height });
      const centre = { x: at.x, "text-anchor": "middle" };
      make(link, "text", { ...centre, y: at.y - 11 }, node.op);
      make(link, "text", { ...centre, y: at.y + 5, class: "small" }, node.name);
      make(link, "text", { ...centre, y: at.y + 20, class: "small" }, node.times);
    }
  };
  if (map && graph) {
    map.addEventListener("toggle", draw, { once: true });
    if (graph.nodes.length <= 60) map.open = true;
  }
})();
