// The page: which directory is shown, and what keys, pointer and window do.

const map = byId("map");
const tip = byId("tip");
let current = root;
let rowsShown = FIRST_ROWS;

// The address says which directory is open, so that the browser's own Back works.
function open(node) {
  if (node === current || !isDirectory(node)) return;
  history.pushState(null, "", `#${node.number}`);
  show(node);
}

function show(node) {
  const left = current;
  const hadFocus = map.contains(document.activeElement);
  current = node;
  rowsShown = FIRST_ROWS;
  draw();
  byId("opened").textContent = `${node.name}: ${node.children.length} entries`;
  if (hadFocus) focusTile(tileOf(childTowards(node, left)) ?? map.querySelector("button"));
}

// What of a directory leads to a node below it; undefined if it is not below.
const childTowards = (directory, node) => pathTo(node)[pathTo(directory).length];
const nodeOf = (tileElement) => nodes[tileElement.dataset.node];
const tileOf = (node) => node && map.querySelector(`button[data-node="${node.number}"]`);

function draw() {
  hideTip();
  drawTreemap(map, current);
  makeReachable(map.querySelector("button"));
  drawCrumbs();
  drawEntries();
  drawWhatIf(byId("what-if"), current);
  byId("up").disabled = current === root;
  for (const name of document.querySelectorAll(".current")) name.textContent = current.name;
}

function drawCrumbs() {
  byId("crumbs").replaceChildren(...pathTo(current).map((node) => {
    const isHere = node === current;
    const made = element(isHere ? "span" : "button", isHere
      ? { "aria-current": "location" }
      : { type: "button", className: "link" }, node.name);
    if (!isHere) made.addEventListener("click", () => open(node));
    return element("li", {}, made);
  }));
}

function drawEntries() {
  const table = byId("entries");
  const hidden = drawRows(table.tBodies[0], current, rowsShown, open);
  showOrder(table.tHead);
  byId("more").hidden = hidden === 0;
  byId("more").textContent = `Show ${exact(hidden)} more`;
}

// Tiles: one of them is in the order of Tab, arrow keys lead to the others.

function makeReachable(chosen) {
  for (const each of map.querySelectorAll("button")) each.tabIndex = each === chosen ? 0 : -1;
}

function focusTile(chosen) {
  if (!chosen) return;
  makeReachable(chosen);
  chosen.focus({ preventScroll: true });
}

// The nearest tile in a direction, by how far it is along and, counting double, beside it.
function neighbour(from, [dx, dy]) {
  const middle = (each) => {
    const box = each.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
  };
  const [x, y] = middle(from);
  let best = null;
  let least = Infinity;
  for (const each of map.querySelectorAll("button")) {
    const [toX, toY] = middle(each);
    const along = (toX - x) * dx + (toY - y) * dy;
    const beside = Math.abs((toX - x) * dy) + Math.abs((toY - y) * dx);
    if (along > 1 && along + 2 * beside < least) [best, least] = [each, along + 2 * beside];
  }
  return best;
}

const ARROWS = {
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
};

map.addEventListener("keydown", (event) => {
  const from = event.target.closest("button");
  if (!from || !(event.key in ARROWS)) return;
  event.preventDefault();
  focusTile(neighbour(from, ARROWS[event.key]));
});

map.addEventListener("click", (event) => {
  const chosen = event.target.closest("button");
  if (chosen) open(nodeOf(chosen));
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && current !== root) open(current.parent);
});

byId("up").addEventListener("click", () => open(current.parent));

// The tip follows the pointer, or stands by the tile that has the focus.

function showTip(node, x, y) {
  tip.replaceChildren(...tipFor(node));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const space = document.documentElement;
  const left = Math.min(x + 14, space.clientWidth - width - 8);
  const top = y + 18 + height > space.clientHeight ? y - height - 12 : y + 18;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, top)}px`;
}

function hideTip() {
  tip.hidden = true;
}

map.addEventListener("pointermove", (event) => {
  const over = event.target.closest("[data-node]");
  if (over) showTip(nodeOf(over), event.clientX, event.clientY);
  else hideTip();
});
map.addEventListener("pointerleave", hideTip);
map.addEventListener("focusin", (event) => {
  const box = event.target.getBoundingClientRect();
  if (event.target.matches(":focus-visible")) {
    showTip(nodeOf(event.target), box.left + Math.min(box.width, 40), box.top + 20);
  }
});
map.addEventListener("focusout", hideTip);

// The whole.

function drawSummary() {
  const where = isMapfs ? "mapfs" : report.filesystem || "its file system";
  byId("lead").textContent = `Files take whole pages, of ${short(report.pageSize)} on ${where}. `
    + "What a file leaves unused of its pages is slack: space that is taken and holds no data.";
  const figures = [
    [isMapfs ? "Slack" : `Slack on ${where}`, human(root.slack),
      `${percent(slackShare(root))} of what is allocated`],
    ["Allocated", human(root.allocated), `${exact(root.allocated)} bytes`],
    ["Size of files", human(root.size), `${exact(root.size)} bytes`],
    ["Files", exact(root.files), root.extents === null ? "" : `${exact(root.extents)} extents`],
  ];
  if (!isMapfs) {
    const there = root.at[report.whatIf.indexOf(report.defaultPage)];
    figures.splice(1, 0, ["Slack in mapfs", human(there), `pages of ${short(report.defaultPage)}`]);
  }
  for (const [title, value, remark] of figures) {
    byId("figures").append(element("div", {}, element("dt", {}, title),
      element("dd", {}, value, element("small", {}, remark))));
  }
  drawSplit();
}

function drawSplit() {
  const split = byId("split");
  split.setAttribute("aria-label", `${percent(slackShare(root))} of the allocated space is slack`);
  const part = element("span");
  part.style.width = `${100 * slackShare(root)}%`;
  split.append(part);
}

function setTheme(isDark) {
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  byId("theme").setAttribute("aria-pressed", String(isDark));
}

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
prefersDark.addEventListener("change", () => setTheme(prefersDark.matches));
byId("theme").addEventListener("click", () => {
  setTheme(document.documentElement.dataset.theme !== "dark");
});

byId("more").addEventListener("click", () => {
  rowsShown = Infinity;
  drawEntries();
});

const addressed = () => nodes[Number(location.hash.slice(1))] ?? root;
window.addEventListener("popstate", () => show(addressed()));

let widthDrawn = 0;
new ResizeObserver(() => {
  if (map.clientWidth === widthDrawn) return;
  widthDrawn = map.clientWidth;
  const held = map.contains(document.activeElement) && nodeOf(document.activeElement);
  draw();
  focusTile(tileOf(held));
}).observe(map);

setTheme(prefersDark.matches);
drawSummary();
drawLegend(byId("legend"));
drawHead(byId("entries").tHead, drawEntries);
drawBars(byId("histogram"), "File size", report.histogram);
drawBars(byId("types"), "Type", report.types.slice(0, 12)
  .map(([name, ...rest]) => [name || "(none)", ...rest]));
byId("made").textContent = `Made by mapfs slack on ${report.made}.`;
current = isDirectory(addressed()) ? addressed() : root;
widthDrawn = map.clientWidth;
draw();
