// The table of what is in a directory, sorted by any column.

const FIRST_ROWS = 20;
const number = (key, title, written) => ({ key, title, of: (node) => node[key], written });
const COLUMNS = [
  { key: "name", title: "Name", of: (node) => node.name },
  number("slack", "Slack", human),
  { key: "share", title: "Slack %", of: slackShare, written: (share) => (100 * share).toFixed(1) },
  number("allocated", "Allocated", human),
  number("size", "Size", human),
  number("files", "Files", exact),
  number("extents", "Extents", exact),
  number("resident", "Resident", human),
];
if (!isMapfs) {
  const index = report.whatIf.indexOf(report.defaultPage);
  COLUMNS.splice(3, 0, {
    key: "mapfs", title: "In mapfs", of: (node) => node.at[index], written: human,
  });
}

const order = { column: COLUMNS[1], descending: true };

function drawHead(head, redraw) {
  const row = element("tr");
  for (const column of COLUMNS) {
    const button = element("button", { type: "button" }, column.title);
    button.addEventListener("click", () => {
      const isSame = order.column === column;
      order.descending = isSame ? !order.descending : column.key !== "name";
      order.column = column;
      redraw();
    });
    row.append(element("th", { scope: "col", "aria-sort": "none" }, button));
  }
  head.replaceChildren(row);
}

function showOrder(head) {
  COLUMNS.forEach((column, index) => {
    const isSorted = column === order.column;
    const direction = order.descending ? "descending" : "ascending";
    head.rows[0].cells[index].setAttribute("aria-sort", isSorted ? direction : "none");
  });
}

// Unknown numbers come last, whichever way the others go.
function compare(one, other) {
  const [left, right] = [order.column.of(one), order.column.of(other)];
  if (left === null || right === null) return (left === null) - (right === null);
  const ascending = typeof left === "string" ? left.localeCompare(right) : left - right;
  return order.descending ? -ascending : ascending;
}

function drawRows(body, directory, most, open) {
  const shown = isDirectory(directory) ? directory.children : [directory];
  const rows = [...shown].sort(compare).slice(0, most).map((node) => row(node, open));
  body.replaceChildren(...rows);
  return shown.length - rows.length;
}

function row(node, open) {
  const cells = COLUMNS.map((column) => {
    if (column.key === "name") return element("th", { scope: "row" }, nameOf(node, open));
    const value = column.of(node);
    const text = value === null ? "–" : column.written(value);
    const cell = element("td", { title: exact(value) }, text);
    if (column.key === "share") {
      cell.title = "";
      cell.prepend(swatch(value));
    }
    return cell;
  });
  return element("tr", {}, ...cells);
}

function swatch(share) {
  const made = element("span", { className: "swatch" });
  made.style.backgroundColor = shade(share);
  return made;
}

function nameOf(node, open) {
  if (!isDirectory(node)) return element("span", {}, node.name);
  const button = element("button", { type: "button", className: "link" }, `${node.name}/`);
  button.addEventListener("click", () => open(node));
  return button;
}
