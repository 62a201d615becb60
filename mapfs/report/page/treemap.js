// The treemap: rectangles as large as what they take, coloured by slack.

const gapAt = (depth) => (depth === 1 ? 2 : 1); // pixels between tiles
const TITLE = 20; // height of a directory's title
const MARGIN = 3; // around what is in a directory
const LEAST = 2; // narrower tiles are not drawn
const ROOMY = { width: 60, height: 48 }; // from this size on a directory shows what is in it
const DEEPEST = 3;

// Squarified treemap (Bruls, Huizing, van Wijk 2000): rows along the shorter side, closed as soon
// as another item would make their tiles longer. Calls `place(item, rectangle)`.
function squarify(items, area, place) {
  const total = items.reduce((sum, item) => sum + item.allocated, 0);
  if (!total) return;
  const scale = (area.width * area.height) / total;
  const free = { ...area };
  let row = [];
  let sum = 0;
  for (const item of items) {
    const size = item.allocated * scale;
    const side = Math.min(free.width, free.height);
    if (row.length && worst(row, sum, side) < worst([...row, { size }], sum + size, side)) {
      layRow(row, sum, free, place);
      row = [];
      sum = 0;
    }
    row.push({ item, size });
    sum += size;
  }
  layRow(row, sum, free, place);
}

// The largest ratio of the sides of a row's tiles. Items come sorted: its ends are the extremes.
function worst(row, sum, side) {
  const thickness = sum / side;
  const ratio = (size) => Math.max(thickness ** 2 / size, size / thickness ** 2);
  return Math.max(ratio(row[0].size), ratio(row.at(-1).size));
}

// Lay a row along the shorter side of what is free, and take it off.
function layRow(row, sum, free, place) {
  const isColumn = free.width >= free.height;
  const thickness = sum / (isColumn ? free.height : free.width) || 0;
  let at = isColumn ? free.y : free.x;
  for (const { item, size } of row) {
    const length = size / thickness || 0;
    place(item, isColumn
      ? { x: free.x, y: at, width: thickness, height: length }
      : { x: at, y: free.y, width: length, height: thickness });
    at += length;
  }
  if (isColumn) {
    free.x += thickness;
    free.width -= thickness;
  } else {
    free.y += thickness;
    free.height -= thickness;
  }
}

// Draw what is in a directory; its entries are buttons, what is in those is only to be looked at.
function drawTreemap(map, directory) {
  const area = { x: 0, y: 0, width: map.clientWidth, height: map.clientHeight };
  const drawn = document.createDocumentFragment();
  const shown = isDirectory(directory) ? directory.children : [directory];
  squarify(shown, area, (node, place) => {
    if (isVisible(place, 1)) drawn.append(tile(node, place, 1));
  });
  if (!drawn.childElementCount) {
    drawn.append(element("p", { className: "nothing" }, "Nothing here takes any space."));
  }
  map.replaceChildren(drawn);
}

const isVisible = ({ width, height }, depth) => Math.min(width, height) - gapAt(depth) >= LEAST;
const isRoomy = ({ width, height }) => width >= ROOMY.width && height >= ROOMY.height;

function tile(node, place, depth) {
  const made = depth === 1
    ? element("button", { type: "button", tabIndex: -1, "aria-label": described(node) })
    : element("span", { "aria-hidden": "true" });
  made.className = "tile";
  made.dataset.node = node.number;
  made.style.left = `${place.x}px`;
  made.style.top = `${place.y}px`;
  made.style.width = `${place.width - gapAt(depth)}px`;
  made.style.height = `${place.height - gapAt(depth)}px`;
  const isNested = node.children.length && depth < DEEPEST && isRoomy(place);
  made.classList.add(isNested ? "nested" : "plain");
  made.append(label(node, place, isNested));
  if (isNested) drawInside(made, node, place, depth);
  else paint(made, shade(slackShare(node)));
  return made;
}

function paint(made, colour) {
  made.style.backgroundColor = colour;
  made.style.color = inkOn(colour);
}

function drawInside(made, node, place, depth) {
  // The last tile's gap lies in the margin.
  const lost = gapAt(depth) - gapAt(depth + 1);
  const inside = {
    x: MARGIN,
    y: TITLE,
    width: place.width - lost - 2 * MARGIN,
    height: place.height - lost - TITLE - MARGIN,
  };
  squarify(node.children, inside, (child, at) => {
    if (isVisible(at, depth + 1)) made.append(tile(child, at, depth + 1));
  });
}

function label(node, place, isNested) {
  const name = isDirectory(node) ? `${node.name}/` : node.name;
  const made = element("span", { className: "label" });
  if (place.width < 46 || place.height < 20) return made;
  made.append(element("b", {}, name));
  const slack = place.width < 100 ? short(node.slack) : `${human(node.slack)} slack`;
  if (isNested) made.append(element("i", {}, percent(slackShare(node))));
  else if (place.height > 38) made.append(element("i", {}, slack));
  return made;
}

// What a screen reader says of a tile, and what the tip shows.
function described(node) {
  const kind = isDirectory(node) ? "directory, " : "";
  return `${node.name}, ${kind}${human(node.allocated)} allocated, `
    + `${human(node.slack)} slack, ${percent(slackShare(node))}`;
}

function tipFor(node) {
  const rows = [
    ["Slack", `${exact(node.slack)} bytes (${percent(slackShare(node))})`],
    ["Allocated", `${exact(node.allocated)} bytes`],
    ["Size", `${exact(node.size)} bytes`],
    ["Extents", exact(node.extents)],
    ["Resident", node.resident === null ? "unknown" : `${exact(node.resident)} bytes`],
  ];
  if (node.kind === DIRECTORY || node.kind === REST) rows.push(["Files", exact(node.files)]);
  const list = element("dl");
  for (const [term, value] of rows) {
    list.append(element("dt", {}, term), element("dd", {}, value));
  }
  const path = pathTo(node).slice(1).map((each) => each.name).join("/") || node.name;
  return [element("b", {}, path), list];
}
