"use strict";

const byId = (id) => document.getElementById(id);

// The report, as mapfs.report.html wrote it. Sizes are bytes.
const report = JSON.parse(byId("data").textContent);

const DIRECTORY = 0;
const isMapfs = report.filesystem === "mapfs";
const REST = 2; // files that were too many and too small to be told apart

// The tree: nodes with their parents and children, the largest first.
const nodes = report.nodes.map(
  ([parent, name, kind, files, size, stored, allocated, slack, extents, resident, ...at], number) => ({
    number, parent, name, kind, files, size, stored, allocated, slack, extents, resident, at,
    children: [],
  }));
for (const node of nodes) {
  node.parent = node.parent < 0 ? null : nodes[node.parent];
  node.parent?.children.push(node);
}
for (const node of nodes) {
  node.children.sort((one, other) => other.allocated - one.allocated);
}
const root = nodes[0];
// The heading has the path that was asked for; its last part is name enough elsewhere.
root.name = byId("path").textContent.split("/").filter(Boolean).at(-1) ?? "/";
const isDirectory = (node) => node.kind === DIRECTORY;
const pathTo = (node) => (node ? [...pathTo(node.parent), node] : []);

// Numbers for people.
function human(bytes) {
  let value = bytes;
  for (const unit of ["", "K", "M", "G", "T"]) {
    if (value < 1024) return unit ? value.toFixed(1) + unit : String(value);
    value /= 1024;
  }
  return value.toFixed(1) + "P";
}
const short = (bytes) => human(bytes).replace(".0", "");
const exact = (number) => (number === null ? "unknown" : number.toLocaleString("en"));
const shareOf = (part, whole) => (whole ? part / whole : 0);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const slackShare = (node) => shareOf(node.slack, node.allocated);

// The colour for a share of slack, and one that can be read on it.
function shade(share) {
  const found = report.shades.find(([bound]) => 100 * share < bound) ?? report.shades.at(-1);
  return found[1];
}
function inkOn(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 130 ? "#16181d" : "#ffffff";
}

// Making elements. Names of files come in as text only, so that they cannot be markup.
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}
function drawing(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
